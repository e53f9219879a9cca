//! Who may say what to whom: every cell of the role × message table, allowed and refused.

#[cfg(test)]
#[macro_use]
#[path = "wire/each.rs"]
mod each;
#[cfg(test)]
#[path = "rights/table.rs"]
mod table;
