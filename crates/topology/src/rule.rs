//! Every rule of the linter by name.

use std::fmt;

use crate::Severity;

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $severity:ident;)+) => {
        /// A rule that a topology obeys. A broken rule makes one [`Finding`](crate::Finding) for each place.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Rule {
            /// Every rule, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name in findings: lower case, with hyphens.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Whether breaking it refuses the document.
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$variant => Severity::$severity,)+
                }
            }

            /// What it demands, in one sentence.
            pub const fn summary(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

rules! {
    /// The document is TOML in UTF-8.
    Syntax = "syntax", Error;
    /// The document is not larger than the limit.
    DocumentSize = "document-size", Error;
    /// Every key is known where it stands.
    UnknownKey = "unknown-key", Error;
    /// Every key that has no default is present.
    MissingKey = "missing-key", Error;
    /// Every value has the type of its key.
    ValueType = "value-type", Error;
    /// A value out of a list of words is one of them.
    UnknownValue = "unknown-value", Error;

    /// The version is 1 or more.
    VersionPositive = "version-positive", Error;
    /// At least one SIP domain is served.
    DomainsPresent = "domains-present", Error;
    /// No domain is listed twice.
    DomainUnique = "domain-unique", Error;

    /// A name is one label: 1 to 63 letters, digits and inner hyphens.
    NameValid = "name-valid", Error;
    /// No two sites, no two pools and no two servers share a name.
    NameUnique = "name-unique", Error;
    /// Every host name and domain is a fully qualified domain name (RFC 1123).
    FqdnValid = "fqdn-valid", Error;
    /// No two pools or servers share a host name.
    FqdnUnique = "fqdn-unique", Error;
    /// The host name of a pool or server is not also a SIP domain.
    FqdnNotDomain = "fqdn-not-domain", Warning;
    /// Every site, pool and server that is referred to exists.
    ReferenceResolves = "reference-resolves", Error;

    /// A branch site has exactly one parent, and that is a central site.
    BranchSiteParent = "branch-site-parent", Error;
    /// A central site has no parent.
    CentralSiteParent = "central-site-parent", Error;
    /// A central site has at least one front-end pool.
    CentralSiteFrontEnd = "central-site-front-end", Error;
    /// A branch site has at most two branch appliances.
    BranchSiteAppliances = "branch-site-appliances", Warning;

    /// Front-end, director and edge pools stand in a central site, branch pools in a branch site.
    PoolSite = "pool-site", Error;
    /// A pool has at least one server.
    PoolServers = "pool-servers", Error;
    /// A pool has at most 12 front ends, 10 directors, 12 edges, one branch appliance, one control server.
    PoolSize = "pool-size", Error;
    /// A pool of the standard edition has one server.
    StandardPoolSize = "standard-pool-size", Error;
    /// A front-end pool of two servers names a tie-breaker, a server outside the pool.
    TieBreaker = "tie-breaker", Error;
    /// Only a front-end pool of two servers names a tie-breaker.
    TieBreakerUnused = "tie-breaker-unused", Warning;
    /// A branch pool has exactly one associated pool, a front-end pool of its branch site's central site.
    BranchAssociatedPool = "branch-associated-pool", Error;
    /// An edge pool sends to a front-end or director pool, a mediation pool to a front-end pool.
    NextHop = "next-hop", Error;
    /// A software version is a short plain text.
    SoftwareValid = "software-valid", Error;
    /// Numbers of users are not negative.
    UsersRange = "users-range", Error;
    /// There is at most one control pool.
    ControlSingle = "control-single", Error;
    /// A key is only written where it has an effect.
    KeyWithoutEffect = "key-without-effect", Warning;

    /// A server has the listeners of its role.
    ServerListeners = "server-listeners", Error;
    /// A listening address is one IP address of the server with a port.
    AddressValid = "address-valid", Error;
    /// No two listeners share an address and port.
    AddressUnique = "address-unique", Error;
    /// Servers listen for each other all on loopback addresses, or none does.
    LoopbackMixed = "loopback-mixed", Warning;
    /// A server has 1 to 64 shards.
    ShardsRange = "shards-range", Error;
    /// The files of a certificate and of its key are named together, as paths without quotes and backslashes.
    TlsFiles = "tls-files", Error;

    /// A pair has two pools.
    PairTwoPools = "pair-two-pools", Error;
    /// A pool is not paired with itself.
    PairSelf = "pair-self", Error;
    /// A pair is written down once.
    PairDuplicate = "pair-duplicate", Error;
    /// A pool is in at most one pair: it backs up no third pool.
    PairOneToOne = "pair-one-to-one", Error;
    /// Both pools of a pair are front-end pools.
    PairRole = "pair-role", Error;
    /// Backups do not chain: what backs a branch is not backed through it, and a branch is in no pair.
    BackupChain = "backup-chain", Error;
    /// A pool backs up another exactly when that one backs it up.
    BackupReciprocal = "backup-reciprocal", Error;
    /// Both pools of a pair have the same edition.
    PairEdition = "pair-edition", Error;
    /// Both pools of a pair have the same kind of back end.
    PairBackEnd = "pair-back-end", Error;
    /// Both pools of a pair run the same software version.
    PairSoftware = "pair-software", Error;
    /// The pools of a pair stand in different sites.
    PairSameSite = "pair-same-site", Warning;
    /// Each pool of a pair can carry the users of both, associated branches included.
    PairCapacity = "pair-capacity", Warning;
    /// A pool can carry its own users and those of its associated branches.
    PoolCapacity = "pool-capacity", Warning;
    /// The capacity of both pools of a pair is stated.
    CapacityStated = "capacity-stated", Warning;
    /// A pair with automatic takeover has a control pool as its witness.
    PairWitness = "pair-witness", Warning;
    /// The control pool stands in no site of a pair, so that no site takes a pool and the witness with it.
    WitnessSite = "witness-site", Warning;

    /// A setting is within its range.
    SettingRange = "setting-range", Error;
    /// The shortest registration is not above the default, nor the default above the longest.
    ExpiresOrder = "expires-order", Error;
    /// The lease ends before the takeover.
    LeaseTakeover = "lease-takeover", Error;
    /// The hold time is not shorter than the takeover time.
    HoldTakeover = "hold-takeover", Warning;
    /// An emergency number is 2 to 15 digits, stars and hashes, and no number stands twice.
    EmergencyNumbers = "emergency-numbers", Error;
    /// The first ban of a source is not longer than the longest.
    BanOrder = "ban-order", Error;
    /// What is never banned is written as addresses and networks, at most 256, and none stands twice.
    BanExempt = "ban-exempt", Error;
    /// Not everybody is exempt from bans.
    BanExemptAll = "ban-exempt-all", Warning;
    /// A name server is an IP address, with or without a port; at most 8, none twice.
    DnsServers = "dns-servers", Error;
    /// MD5, SHA-256 or both are offered, and no algorithm twice.
    DigestAlgorithms = "digest-algorithms", Error;
    /// SHA-512-256 is not offered.
    DigestSha512 = "digest-sha-512-256", Warning;
    /// SHA-256 is offered before MD5.
    DigestOrder = "digest-order", Warning;
    /// MD5 is offered.
    DigestMd5 = "digest-md5", Warning;

    /// A new document has a higher version.
    VersionGrows = "version-grows", Error;
    /// A new document is of the same deployment.
    DeploymentSame = "deployment-same", Error;
    /// A pool is not removed while it homes users, backs a branch or is a next hop.
    PoolRemoved = "pool-removed", Error;
    /// A domain is not removed.
    DomainRemoved = "domain-removed", Warning;
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rule_names_are_unique_and_hyphenated() {
        let names: BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();

        assert_eq!(names.len(), Rule::ALL.len());
        for name in names {
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{name}"
            );
        }
    }

    #[test]
    fn a_rule_says_what_it_demands_in_one_sentence() {
        for rule in Rule::ALL {
            assert!(rule.summary().ends_with('.') && !rule.summary().starts_with(' '), "{rule}");
        }
    }
}
