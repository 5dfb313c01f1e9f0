//! Central and branch sites.

use super::Check;
use crate::{
    Role, Rule,
    raw::{Site, SiteWord, Text},
};

/// Branch appliances of one branch site. Source: product, section 3.
const APPLIANCES_MAX: usize = 2;

pub(super) fn check(check: &mut Check<'_>) {
    for site in &check.document.sites {
        match site.kind {
            Some(SiteWord::Branch) => {
                check_parents(check, site);
                check_appliances(check, site);
            }
            Some(SiteWord::Central) => check_central(check, site),
            None => {}
        }
    }
}

fn check_parents(check: &mut Check<'_>, site: &Site) {
    match site.parents.as_deref() {
        Some([parent]) => check_parent(check, site, parent),
        Some(parents) => {
            let message =
                format!("a branch site belongs to one central site, this one names {}", parents.len());
            let at = site.keys.get("parent").copied().unwrap_or(site.at);
            check.report(Rule::BranchSiteParent, at, &site.subject, message, "keep one: parent = \"...\"");
        }
        None if site.keys.contains_key("parent") => {}
        None => {
            let remedy = "add the central site it belongs to: parent = \"...\"";
            check.report(
                Rule::BranchSiteParent,
                site.at,
                &site.subject,
                "a branch site needs a parent",
                remedy,
            );
        }
    }
}

fn check_parent(check: &mut Check<'_>, site: &Site, parent: &Text) {
    let kind = check.sites.get(parent.value.as_str()).and_then(|parent| parent.kind);
    if kind == Some(SiteWord::Branch) {
        let message = format!("its parent {} is a branch site itself", parent.value);
        check.report(Rule::BranchSiteParent, parent.at, &site.subject, message, "name a central site");
    }
}

fn check_appliances(check: &mut Check<'_>, site: &Site) {
    let appliances: usize = check
        .residents(site)
        .iter()
        .filter(|pool| pool.role == Some(Role::Branch))
        .map(|pool| check.members(pool))
        .sum();
    if appliances > APPLIANCES_MAX {
        let message = format!("it has {appliances} branch appliances, at most {APPLIANCES_MAX} are advised");
        let remedy = "make the larger ones a central site with a front-end pool, or remove some";
        check.report(Rule::BranchSiteAppliances, site.at, &site.subject, message, remedy);
    }
}

fn check_central(check: &mut Check<'_>, site: &Site) {
    if let Some(&at) = site.keys.get("parent") {
        let message = "a central site has no parent";
        let remedy = "remove parent, or add kind = \"branch\"";
        check.report(Rule::CentralSiteParent, at, &site.subject, message, remedy);
    }
    let may_have_front_end =
        check.residents(site).iter().any(|pool| matches!(pool.role, Some(Role::FrontEnd) | None));
    if !may_have_front_end {
        let message = "a central site has at least one front-end pool, this one has none";
        let remedy = "add a [[pool]] with role = \"front_end\" here, or make it a branch site with a parent";
        check.report(Rule::CentralSiteFrontEnd, site.at, &site.subject, message, remedy);
    }
}
