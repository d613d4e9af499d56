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
fn the_stories_of_checkpoints_tell_of_them() {
    let without_cut = |story: Story, replicas: u8| {
        let report = kimberlite_sim::told(story, replicas);
        let counts = report.counts;
        assert_eq!(report.outcome, Outcome::Passed);
        assert!(counts.checkpoints >= 3 * u64::from(replicas), "{}: {counts:?}", story.name());
        (counts.pages_mended > 0, counts.rebuilds)
    };
    assert_eq!(without_cut(Story::Checkpoint, 1), (false, 0));
    assert_eq!(without_cut(Story::Checkpoint, 3), (false, 0));
    assert_eq!(without_cut(Story::Mend, 3), (true, 0));
    assert_eq!(without_cut(Story::Rebuild, 1), (false, 1));
    assert_eq!(without_cut(Story::Rebuild, 3), (false, 3));
}

#[test]
fn three_replicas_survive_power_cuts_throughout_every_story() {
    for story in Story::ALL {
        // Stories of checkpoints are long, and most of each is told by another.
        let long = matches!(story, Story::Checkpoint | Story::Mend | Story::Rebuild);
        cut_everywhere(story, 3, if long { 41 } else { 7 });
    }
}
