//! The contacts of one user, in groups.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

use super::EditError;
use crate::{AddressOfRecord, limits};

/// Why a text is not the name of a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a group's name has 1 to {max} octets and no control characters")]
pub struct GroupNameError {
    max: usize,
}

/// The name of a group of contacts: 1 to `limits::GROUP_NAME_BYTES_MAX` octets of UTF-8 without control
/// characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct GroupName(Arc<str>);

impl GroupName {
    /// Checks `text`.
    ///
    /// Errors: [`GroupNameError`].
    pub fn new(text: &str) -> Result<Self, GroupNameError> {
        let max = limits::GROUP_NAME_BYTES_MAX;
        if text.is_empty() || text.len() > max || text.chars().any(char::is_control) {
            return Err(GroupNameError { max });
        }
        Ok(Self(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for GroupName {
    type Err = GroupNameError;

    fn from_str(text: &str) -> Result<Self, GroupNameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for GroupName {
    type Error = GroupNameError;

    fn try_from(text: String) -> Result<Self, GroupNameError> {
        Self::new(&text)
    }
}

impl Serialize for GroupName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The contacts of one user, in groups; a contact may be in several groups or in none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContactList {
    groups: Vec<GroupName>,
    contacts: BTreeMap<AddressOfRecord, ListedContact>,
}

/// One contact in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListedContact {
    /// How the user calls the contact; empty = as the contact calls itself. At most
    /// `limits::GROUP_NAME_BYTES_MAX` octets.
    pub name: String,
    /// The groups it is in, in order of name.
    pub groups: Vec<GroupName>,
}

/// An operation on a contact list. Each says what shall be true after it, so it can be applied to any
/// version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ContactListEdit {
    /// The contact is in the list, with this name and in exactly these groups; missing groups are made.
    Put {
        /// Who.
        contact: AddressOfRecord,
        /// Name and groups.
        listed: ListedContact,
    },
    /// The contact is not in the list.
    Remove {
        /// Who.
        contact: AddressOfRecord,
    },
    /// There is a group of this name.
    PutGroup {
        /// Its name.
        group: GroupName,
    },
    /// There is no group of this name; its contacts stay in the list.
    RemoveGroup {
        /// Its name.
        group: GroupName,
    },
}

impl ContactList {
    /// The groups, oldest first.
    pub fn groups(&self) -> &[GroupName] {
        &self.groups
    }

    /// The contacts in order of address-of-record.
    pub fn contacts(&self) -> impl Iterator<Item = (&AddressOfRecord, &ListedContact)> {
        self.contacts.iter()
    }

    /// Makes true what the operation says.
    ///
    /// Errors: [`EditError::Full`]; then nothing is changed.
    pub fn apply(&mut self, edit: &ContactListEdit) -> Result<(), EditError> {
        match edit {
            ContactListEdit::Put { contact, listed } => return self.put(contact, listed),
            ContactListEdit::Remove { contact } => drop(self.contacts.remove(contact)),
            ContactListEdit::PutGroup { group } => return self.put_groups(std::slice::from_ref(group)),
            ContactListEdit::RemoveGroup { group } => {
                self.groups.retain(|known| known != group);
                for listed in self.contacts.values_mut() {
                    listed.groups.retain(|known| known != group);
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, contact: &AddressOfRecord, listed: &ListedContact) -> Result<(), EditError> {
        let max = limits::CONTACTS_PER_LIST_MAX;
        if self.contacts.len() >= max && !self.contacts.contains_key(contact) {
            return Err(EditError::Full { what: "contacts", max });
        }
        if listed.name.len() > limits::GROUP_NAME_BYTES_MAX {
            let max = limits::GROUP_NAME_BYTES_MAX;
            return Err(EditError::Full { what: "octets of a contact's name", max });
        }
        self.put_groups(&listed.groups)?;
        let mut listed = listed.clone();
        listed.groups.sort();
        listed.groups.dedup();
        self.contacts.insert(contact.clone(), listed);
        Ok(())
    }

    fn put_groups(&mut self, groups: &[GroupName]) -> Result<(), EditError> {
        let max = limits::GROUPS_PER_LIST_MAX;
        let mut after = self.groups.clone();
        for group in groups {
            if !after.contains(group) {
                after.push(group.clone());
            }
        }
        if after.len() > max {
            return Err(EditError::Full { what: "groups", max });
        }
        self.groups = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(number: usize) -> AddressOfRecord {
        AddressOfRecord::new(&format!("sip:c{number}@example.com")).unwrap()
    }

    fn put(number: usize, groups: &[&str]) -> ContactListEdit {
        let groups = groups.iter().map(|name| GroupName::new(name).unwrap()).collect();
        ContactListEdit::Put {
            contact: contact(number),
            listed: ListedContact { name: String::new(), groups },
        }
    }

    #[test]
    fn every_operation_applied_twice_is_the_same_as_once() {
        let group = GroupName::new("Sales").unwrap();
        let edits = [
            put(1, &["Sales", "Berlin"]),
            put(2, &[]),
            ContactListEdit::RemoveGroup { group: group.clone() },
            ContactListEdit::PutGroup { group },
            ContactListEdit::Remove { contact: contact(2) },
        ];
        let (mut once, mut twice) = (ContactList::default(), ContactList::default());

        for edit in &edits {
            once.apply(edit).unwrap();
            twice.apply(edit).unwrap();
            twice.apply(edit).unwrap();
        }

        assert_eq!(once, twice);
        assert_eq!(once.contacts().count(), 1);
        assert_eq!(once.groups().iter().map(GroupName::as_str).collect::<Vec<_>>(), ["Berlin", "Sales"]);
    }

    #[test]
    fn a_full_list_refuses_another_contact_and_still_changes_those_it_has() {
        let mut list = ContactList::default();
        for number in 0..limits::CONTACTS_PER_LIST_MAX {
            list.apply(&put(number, &[])).unwrap();
        }
        let full = list.clone();

        assert!(matches!(list.apply(&put(limits::CONTACTS_PER_LIST_MAX, &[])), Err(EditError::Full { .. })));
        assert_eq!(list, full);
        assert_eq!(list.apply(&put(0, &["Berlin"])), Ok(()));
    }

    #[test]
    fn too_many_groups_are_refused_as_a_whole() {
        let mut list = ContactList::default();
        let names: Vec<String> =
            (0..=limits::GROUPS_PER_LIST_MAX).map(|number| format!("g{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();

        assert!(matches!(list.apply(&put(1, &names)), Err(EditError::Full { .. })));
        assert_eq!(list, ContactList::default());
    }
}
