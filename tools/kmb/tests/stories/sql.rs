//! `kmb sql`, against nodes.

use std::net::TcpStream;

use serde_json::json;

use crate::world::{Lone, Three, await_some, kmb, kmb_with, temporary};

const CREATE: &str = "CREATE TABLE patient (id INT PRIMARY KEY, name TEXT NOT NULL);
-- a comment; with a semicolon
INSERT INTO patient VALUES (1, 'Ada'), (2, 'Grace; Hopper');";

#[test]
fn tables_outlive_the_node() {
    let dir = temporary();
    let lone = Lone::new(dir.path(), "small");
    let sql = ["sql", "--nodes", &lone.address];
    kmb(&[&sql[..], &["-c", "SELECT 1"]].concat()).fails(1, &["3D000", "--create-tenant"]);
    let made = kmb_with(&[&sql[..], &["--create-tenant"]].concat(), CREATE.as_bytes()).ok();
    assert_eq!(made, "CREATE TABLE\nINSERT 0 2\n");
    let table = " id |     name\n----+---------------\n  1 | Ada\n  2 | Grace; Hopper\n(2 rows)\n";
    let select = "SELECT * FROM patient ORDER BY id";
    assert_eq!(kmb(&[&sql[..], &["-c", select]].concat()).ok(), table);
    let refused = kmb(&[&sql[..], &["-c", "INSERT INTO patient VALUES (1, 'Eve'); SELECT 1"]].concat());
    assert_eq!(refused.out, "");
    refused.fails(1, &["23505", "patient_pkey"]);
    kmb(&[&sql[..], &["-c", "SELECT nam FROM patient"]].concat()).fails(1, &["42703", "\n       "]);
    let block =
        ["-c", "BEGIN; DELETE FROM patient; SELECT count(*) FROM patient; ROLLBACK", "--format", "json"];
    let told = kmb(&[&sql[..], &block].concat()).json();
    assert_eq!(told[2], json!({ "count": 0 }));
    let data = lone.data.clone();
    lone.node.stop();
    let lone = Lone::start(&data);
    let sql = ["sql", "--nodes", &lone.address, "-c", select, "--format", "csv"];
    assert_eq!(kmb(&sql).ok(), "id,name\n1,Ada\n2,Grace; Hopper\n");
}

#[test]
fn a_cluster_answers_without_one_of_its_nodes() {
    let mut three = Three::new();
    let nodes = three.nodes.clone();
    let sql = ["sql", "--nodes", &nodes, "--create-tenant"];
    kmb_with(&sql, CREATE.as_bytes()).ok();
    for gone in 0..3 {
        three.running[gone] = None;
        // The kernel takes connections for a dead node until its ring is gone, and what is sent into one is lost.
        let address = nodes.split(',').nth(gone).unwrap();
        await_some("the dead node's port to close", || TcpStream::connect(address).is_err().then_some(()));
        let insert = format!("INSERT INTO patient VALUES ({}, 'x') RETURNING id", gone + 3);
        let told = kmb(&["sql", "--nodes", &nodes, "-c", &insert, "--format", "json"]).json();
        assert_eq!(told, [json!({ "id": gone + 3 })]);
        three.start();
    }
}

#[test]
fn rows_are_copied_in_and_out_beside_the_log_and_their_history() {
    let dir = temporary();
    let lone = Lone::new(dir.path(), "small");
    let nodes = ["--nodes", &lone.address];
    let sql = |more: &[&str]| kmb(&[&["sql"], &nodes[..], more].concat());
    let script = "CREATE TABLE t (a INT PRIMARY KEY, b TEXT);\nCOPY t FROM STDIN;\n1\tone; two\n2\t\\N\n\\.\nSELECT count(*) FROM t;\n";
    let made = kmb_with(
        &[&["sql"], &nodes[..], &["--create-tenant", "--format", "csv"]].concat(),
        script.as_bytes(),
    );
    assert_eq!(made.ok(), "count\n2\n");
    // More rows than one batch holds.
    let file = dir.path().join("rows.csv");
    let rows = (3..=2500).map(|n| format!("{n},\"row\n{n}\"\n")).collect::<Vec<_>>().concat();
    std::fs::write(&file, format!("a,b\n{rows}")).unwrap();
    let copy = format!("\\copy t FROM '{}' CSV HEADER", file.display());
    assert_eq!(sql(&["-c", &copy]).ok(), "COPY 2498\n");
    let out = dir.path().join("out.csv");
    let copy = format!(
        "\\copy (SELECT * FROM t WHERE a > 2 ORDER BY a) TO '{}' (FORMAT csv, HEADER)",
        out.display()
    );
    assert_eq!(sql(&["-c", &copy]).ok(), "COPY 2498\n");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), std::fs::read_to_string(&file).unwrap());
    assert_eq!(sql(&["-c", "COPY (SELECT * FROM t WHERE a < 3) TO STDOUT"]).ok(), "1\tone; two\n2\t\\N\n");
    let told =
        kmb_with(&[&["sql"], &nodes[..], &["-c", "COPY t FROM STDIN"]].concat(), b"2600\tx\nnone\ty\n");
    told.fails(1, &["22P02", "COPY t, line 2, column a: \"none\""]);
    // The log is in the same database.
    let visits = dir.path().join("visits.txt");
    std::fs::write(&visits, "1\n2\n").unwrap();
    kmb(&[&["append"], &nodes[..], &["--stream", "visits", "--file", &visits.display().to_string()]].concat()).ok();
    let joined = "SELECT s.\"offset\", b FROM stream('visits') s JOIN t ON a = convert_from(payload, 'UTF8')::int ORDER BY 1";
    assert_eq!(sql(&["-c", joined, "--format", "csv"]).ok(), "offset,b\n0,one; two\n1,\n");
    sql(&["-c", "SELECT * FROM stream('visit')"]).fails(1, &["42704", "visits"]);
    sql(&["-c", "UPDATE t SET b = 'two' WHERE a = 2"]).ok();
    let history = "SELECT b, operation, ended_by FROM HISTORY OF t WHERE a = 2";
    assert_eq!(
        sql(&["-c", history, "--format", "csv"]).ok(),
        "b,operation,ended_by\n,INSERT,UPDATE\ntwo,UPDATE,\n"
    );
}
