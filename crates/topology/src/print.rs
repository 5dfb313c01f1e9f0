//! The canonical text of a topology.

use crate::{
    Topology,
    section::{Section, sections},
};

impl Topology {
    /// The document with every value in force, defaults included; reading it gives an equal topology.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for section in sections(self) {
            push_section(&mut text, &section);
        }
        text
    }
}

fn push_section(text: &mut String, section: &Section) {
    if !section.kind.is_empty() {
        text.push_str(&format!("\n[[{}]]\n", section.kind));
    }
    for (key, value) in &section.keys {
        text.push_str(&format!("{key} = {value}\n"));
    }
    if !section.settings.is_empty() {
        text.push_str(&format!("[{}.settings]\n", section.kind));
    }
    for (key, value) in &section.settings {
        text.push_str(&format!("{key} = {value}\n"));
    }
}
