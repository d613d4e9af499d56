//! Power cuts at every ask of short stories.

use kimberlite_sim::{CrashPoint, Outcome, Story, asks_of, crash_at, crash_points};

/// Lives a story with every `stride`th of its power cuts.
fn cut_everywhere(story: Story, replicas: u8, stride: usize) {
    let asked = asks_of(story, replicas).unwrap_or_else(|failure| panic!("{}: {failure}", story.name()));
    assert!(asked.iter().all(|asked| *asked > 20), "{}: {asked:?} asks tell no story", story.name());
    let points = crash_points(story, replicas, &asked);
    let failed: Vec<(CrashPoint, Outcome)> = points
        .iter()
        .step_by(stride)
        .map(|point| (*point, crash_at(point)))
        .map(|(point, report)| (point, report.outcome))
        .filter(|(_, outcome)| *outcome != Outcome::Passed)
        .collect();
    let told: Vec<String> = failed.iter().map(|(point, outcome)| format!("{point}: {outcome:?}")).collect();
    assert!(told.is_empty(), "{} of {} power cuts:\n{}", told.len(), points.len(), told.join("\n"));
}

#[test]
fn a_lone_replica_survives_a_power_cut_at_every_ask() {
    for story in Story::ALL.into_iter().filter(|story| story.fits(1)) {
        cut_everywhere(story, 1, 1);
    }
}

#[test]
fn three_replicas_survive_power_cuts_throughout_every_story() {
    for story in Story::ALL {
        cut_everywhere(story, 3, 7);
    }
}
