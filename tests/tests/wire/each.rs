//! One value for every variant of an enum, checked by the compiler.

/// Expands to `Vec<(&'static str, T)>`: every variant of `T` with a value of it. A variant
/// without a line here does not compile, nor does a line without a variant.
macro_rules! each {
    ($type:ident { $($variant:ident => $value:expr),+ $(,)? }) => {{
        let name = |value: &$type| match value {
            $($type::$variant { .. } => stringify!($variant),)+
        };
        let all = vec![$((stringify!($variant), $value)),+];
        for (variant, value) in &all {
            assert_eq!(name(value), *variant, "the value of this line is of another variant");
        }
        all
    }};
}
