//! Facts that no planner makes are refused, whatever they say; none changes anything.

use super::*;

#[test]
fn a_tenant_that_does_not_exist_has_no_tables() {
    let mut cluster = Cluster::new(&[Memory::Whole]);
    let facts = postcard::to_allocvec(&Facts::default()).unwrap();
    let command = Command::Facts { facts: &facts, reply: b"" }.encode();
    assert_eq!(cluster.commit(TenantId(99), 5, &[command.clone()]), [Err(Refusal::NoTenant)]);
    assert_eq!(cluster.commit(CLINIC, 6, &[command]), [Ok(Outcome::Written { rows: 0 })]);
    assert_eq!(cluster.refused(&Facts::default()), None);
}
