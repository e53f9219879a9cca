//! What a certificate says about its holder, and how it is written into it.
//!
//! In the subject alternative names: one URI `distributary://ROLE/NAME`, one URI
//! `distributary-label:KEY=VALUE` per label, and the DNS name of the role, by which the
//! dialling side has TLS check the role of the server. The alphabets of names and labels
//! are such that nothing needs escaping.

use std::collections::BTreeMap;

use shared::id::{Name, Role};
use x509_parser::extensions::GeneralName;

use crate::peer::IdentifyError;
use shared::label;

/// The DNS zone of the fixed names; no `--host` may be in it.
const ZONE: &str = "distributary.internal";
const IDENTITY_URI: &str = "distributary://";
const LABEL_URI: &str = "distributary-label:";
/// Every URI that starts so is a statement, and a statement that is not understood is an
/// error: it might restrict what the holder may do.
const STATEMENT_URI: &str = "distributary";

/// Role, name and labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) role: Role,
    pub(crate) name: Name,
    pub(crate) labels: BTreeMap<String, String>,
}

/// The DNS name that every certificate of `role` carries.
pub(crate) const fn server_name(role: Role) -> &'static str {
    match role {
        Role::Base => "base.distributary.internal",
        Role::Node => "node.distributary.internal",
        Role::Client => "client.distributary.internal",
        Role::Operator => "operator.distributary.internal",
    }
}

/// Whether a DNS name lies in the zone of the fixed names.
pub(crate) fn is_in_zone(dns_name: &str) -> bool {
    let name = dns_name.trim_end_matches('.').to_ascii_lowercase();
    name.strip_suffix(ZONE).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether `name` is free for an identity of `role`: `all` is nobody's, `base` a base's.
pub(crate) fn is_name_allowed(role: Role, name: &Name) -> bool {
    !name.is_reserved() || (role == Role::Base && name.as_str() == Role::Base.as_str())
}

impl Subject {
    /// The URIs that say it.
    pub(crate) fn uris(&self) -> Vec<String> {
        let identity = format!("{IDENTITY_URI}{}/{}", self.role, self.name);
        let labels = self.labels.iter().map(|(key, value)| format!("{LABEL_URI}{key}={value}"));
        std::iter::once(identity).chain(labels).collect()
    }

    /// Reads it back from the alternative names of a certificate.
    pub(crate) fn read(names: &[GeneralName<'_>]) -> Result<Self, IdentifyError> {
        let mut identity = None;
        let mut labels = BTreeMap::new();
        for name in names {
            let GeneralName::URI(uri) = name else {
                continue;
            };
            if let Some(text) = uri.strip_prefix(IDENTITY_URI) {
                if identity.replace(parse_identity(text)?).is_some() {
                    return Err(IdentifyError::TwoRoles);
                }
            } else if let Some(text) = uri.strip_prefix(LABEL_URI) {
                label::insert(&mut labels, label::parse(text)?)?;
            } else if uri.starts_with(STATEMENT_URI) {
                return Err(IdentifyError::UnknownStatement((*uri).to_owned()));
            }
        }
        let (role, name) = identity.ok_or(IdentifyError::NoRole)?;
        check_zone(role, names)?;
        Ok(Self { role, name, labels })
    }
}

fn parse_identity(text: &str) -> Result<(Role, Name), IdentifyError> {
    let (role, name) =
        text.split_once('/').ok_or_else(|| IdentifyError::UnknownStatement(text.to_owned()))?;
    let (role, name) = (role.parse::<Role>()?, Name::new(name)?);
    if !is_name_allowed(role, &name) {
        return Err(IdentifyError::ReservedName { role, name });
    }
    Ok((role, name))
}

/// A certificate with the DNS name of another role would pass for that role when dialled.
fn check_zone(role: Role, names: &[GeneralName<'_>]) -> Result<(), IdentifyError> {
    for name in names {
        let GeneralName::DNSName(dns) = name else {
            continue;
        };
        if is_in_zone(dns) && !dns.eq_ignore_ascii_case(server_name(role)) {
            return Err(IdentifyError::OtherRolesName { role, dns_name: (*dns).to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(names: &[GeneralName<'_>]) -> Result<Subject, IdentifyError> {
        Subject::read(names)
    }

    #[test]
    fn what_is_written_is_read_back() {
        for role in Role::ALL {
            let labels = [("region".to_owned(), "EU".to_owned())].into();
            let subject = Subject { role, name: Name::new("x-1.y_2").unwrap(), labels };
            let uris = subject.uris();
            let mut names: Vec<_> = uris.iter().map(|uri| GeneralName::URI(uri)).collect();
            names.push(GeneralName::DNSName(server_name(role)));
            names.push(GeneralName::DNSName("host.example"));
            names.push(GeneralName::URI("https://example.org"));
            assert_eq!(read(&names).unwrap(), subject);
        }
    }

    #[test]
    fn statements_that_are_not_understood_are_refused() {
        let node = GeneralName::URI("distributary://node/a");
        let wrong = [
            "distributary://node/b",
            "distributary://king/b",
            "distributary://node/",
            "distributary://node/a/b",
            "distributary://node/all",
            "distributary://node/base",
            "distributary://node",
            "distributary-label:k",
            "distributary-limit:1",
        ];
        assert!(read(std::slice::from_ref(&node)).is_ok());
        for uri in wrong {
            assert!(read(&[node.clone(), GeneralName::URI(uri)]).is_err(), "{uri}");
            let alone = GeneralName::URI(uri);
            assert_eq!(read(&[alone]).is_ok(), uri == "distributary://node/b", "{uri}");
        }
        assert!(matches!(read(&[]), Err(IdentifyError::NoRole)));
        let label = GeneralName::URI("distributary-label:k=v");
        assert!(read(&[node.clone(), label.clone()]).is_ok());
        assert!(read(&[node, label.clone(), label]).is_err());
    }

    #[test]
    fn the_dns_name_of_another_role_is_refused() {
        let node = GeneralName::URI("distributary://node/a");
        for dns in
            ["base.distributary.internal", "BASE.Distributary.internal", "*.distributary.internal"]
        {
            let found = read(&[node.clone(), GeneralName::DNSName(dns)]);
            assert!(matches!(found, Err(IdentifyError::OtherRolesName { .. })), "{dns}");
        }
        assert!(read(&[node, GeneralName::DNSName("node.distributary.internal")]).is_ok());
    }

    #[test]
    fn the_zone_is_known_in_every_spelling() {
        for inside in
            ["distributary.internal", "a.DISTRIBUTARY.internal", "base.distributary.internal."]
        {
            assert!(is_in_zone(inside), "{inside}");
        }
        for outside in ["mydistributary.internal", "distributary.internal.example", "internal"] {
            assert!(!is_in_zone(outside), "{outside}");
        }
    }
}
