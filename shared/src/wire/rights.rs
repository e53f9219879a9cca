//! Who may say what to whom: one table, and what it does not allow is refused.

use crate::id::Role;

use super::message::FrameType;
use super::request::Request;

/// Whether a peer of role `sender` may send a frame of type `kind` to a `receiver`.
pub const fn may_send(sender: Role, kind: FrameType, receiver: Role) -> bool {
    use FrameType as F;
    use Role::{Base, Client, Node, Operator};
    match (sender, receiver) {
        (Node, Base) => matches!(
            kind,
            F::Hello
                | F::Beat
                | F::Acks
                | F::Reconcile
                | F::Goodbye
                | F::GoodbyeAck
                | F::Answer
                | F::Offer
                | F::Want
                | F::Report
                | F::Request
        ),
        (Base, Node) => matches!(
            kind,
            F::Welcome
                | F::Beat
                | F::Acks
                | F::Goodbye
                | F::GoodbyeAck
                | F::Query
                | F::Assign
                | F::View
                | F::Offer
                | F::Want
                | F::Reply
        ),
        (Node, Node) => {
            matches!(
                kind,
                F::Hello
                    | F::Welcome
                    | F::Beat
                    | F::Acks
                    | F::Goodbye
                    | F::GoodbyeAck
                    | F::Offer
                    | F::Want
            )
        }
        (Client | Operator, Base) => {
            matches!(kind, F::Hello | F::Acks | F::Goodbye | F::GoodbyeAck | F::Offer | F::Request)
        }
        (Base, Client | Operator) => {
            matches!(kind, F::Welcome | F::Acks | F::Goodbye | F::GoodbyeAck | F::Want | F::Reply)
        }
        (Base, Base)
        | (Client | Operator, Node | Client | Operator)
        | (Node, Client | Operator) => false,
    }
}

/// Whether a peer of role `sender` may open a job stream to a `receiver`.
pub const fn may_feed(sender: Role, receiver: Role) -> bool {
    use Role::{Base, Client, Node, Operator};
    matches!((sender, receiver), (Client | Operator | Node, Base) | (Base | Node, Node))
}

/// Whether a peer of role `sender` may make this request of the base.
///
/// Whose job it is about is a further question, which the base asks of its job table.
pub const fn may_request(sender: Role, request: &Request) -> bool {
    use Role::{Base, Client, Node, Operator};
    match request {
        Request::Create { .. }
        | Request::Jobs
        | Request::Job(_)
        | Request::Watch(_)
        | Request::Cancel(_)
        | Request::Remove(_)
        | Request::Fail { .. }
        | Request::Nodes
        | Request::Resume { .. } => match sender {
            Client | Operator => true,
            Base | Node => false,
        },
        Request::ForgetNode(_) | Request::LabelNode { .. } => matches!(sender, Operator),
        Request::Servers { .. } => matches!(sender, Node),
    }
}
