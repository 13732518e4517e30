//! A view counter in the session.

use peers::measure::{Line, Plan, Results, ServerClock, Spread};
use peers::sessions::{self, CONNECTIONS, Round};

/// Runs a contest with one session for all connections, and one with 2,000 sessions.
pub fn hold(url: &str, clock: &ServerClock, plan: Plan) -> Vec<Results> {
    let applications = sessions::applications(url, false);
    let load = crate::l1::runtime();
    // Long enough to be counted in the hundredths of a second that the system reports.
    let (rounds, time) = (plan.rounds.min(5), plan.slice * 8);
    [1, 2_000]
        .map(|count| {
            eprintln!("view counter, {count} session(s): {rounds} rounds");
            let cookies: Vec<Vec<String>> =
                applications.iter().map(|application| load.block_on(sessions::begin(application, count))).collect();
            let mut results = vec![Vec::new(); applications.len()];
            for number in 0..=rounds {
                for turn in 0..applications.len() {
                    let which = (number + turn) % applications.len();
                    let round = sessions::run(&applications[which], &cookies[which], time, Some(clock));
                    let result = load.block_on(round);
                    // The first round is a warm-up.
                    if number > 0 {
                        results[which].push(result);
                    }
                }
            }
            let names: Vec<&str> = applications.iter().map(|application| application.name).collect();
            summarize(count, &names, &results)
        })
        .into()
}

fn summarize(count: usize, names: &[&str], results: &[Vec<Round>]) -> Results {
    let nanoseconds = |which: usize| -> Vec<f64> {
        results[which].iter().map(|round| 1e9 * CONNECTIONS as f64 / round.per_second).collect()
    };
    // The ratio is to tower-sessions, which is always there.
    let tower = names.iter().position(|name| name.starts_with("tower")).expect("an application");
    let first = nanoseconds(tower);
    let lines = names.iter().enumerate().map(|(which, name)| {
        let times = nanoseconds(which);
        let ratios: Vec<f64> = times.iter().zip(&first).map(|(own, first)| own / first).collect();
        let rounds = &results[which];
        let of = |of: fn(&Round) -> f64| Spread::of(&rounds.iter().map(of).collect::<Vec<_>>()).median;
        let acknowledged: u64 = rounds.iter().map(|round| round.acknowledged).sum();
        let lost: u64 = rounds.iter().map(|round| round.lost).sum();
        Line {
            name: (*name).to_owned(),
            time: Spread::of(&times),
            ratio: Spread::of(&ratios),
            client: of(|round| round.cpu),
            server: Some(of(|round| round.redis_cpu)),
            note: format!("{:.0}/s, {lost} of {acknowledged} lost", of(|round| round.per_second)),
        }
    });
    let mut lines: Vec<Line> = lines.collect();
    // The baseline comes first, as in the other contests.
    lines.sort_by_key(|line| !line.name.starts_with("tower"));
    if !names.iter().any(|name| name.starts_with("Express")) {
        lines.push(Line {
            name: "Express + connect-redis".into(),
            time: Spread::of(&[]),
            ratio: Spread::of(&[]),
            client: f64::NAN,
            server: None,
            note: "not run: `tests/interop/install` was not run before".into(),
        });
    }
    Results { title: format!("view counter, {CONNECTIONS} connections, {count} session(s)"), lines }
}
