//! Every renderer against golden files in `tests/golden`, from one fixed recording ([`super::sample`]).
//!
//! To take over what is rendered now: `NETPOLL_PROBE_BLESS=1 cargo test -p netpoll-probe report`.

use std::{env, fs, path::PathBuf};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::{
    Format, FormatError, NdjsonWriter, Options,
    sample::{self, Recording},
    schema,
};
use crate::model::{
    group::Dimension,
    profile::{Budget, BudgetChange, Profile},
    quality::Quality,
    wait::Phase,
};

fn finish(recording: Recording) -> Profile {
    let quality = sample::quality(&recording.waits, recording.builder.stacks());
    recording.finish(quality)
}

fn rendered(profile: &Profile, format: Format, options: &Options) -> String {
    let mut out = Vec::new();
    format.renderer().unwrap()(profile, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn text(profile: &Profile, options: &Options) -> String {
    rendered(profile, Format::Text, options)
}

fn ndjson(recording: &Recording) -> String {
    let mut writer = NdjsonWriter::new(Vec::new());
    for wait in &recording.waits {
        writer.write(wait, recording.builder.stacks()).unwrap();
    }
    writer.flush().unwrap();
    String::from_utf8(writer.into_inner()).unwrap()
}

/// Compares with a golden file, or writes it when asked to.
#[track_caller]
pub(super) fn golden(name: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
    if env::var_os("NETPOLL_PROBE_BLESS").is_some() {
        fs::write(&path, found).unwrap();
        return;
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    let differs = wanted.lines().map(Some).chain([None]).zip(found.lines().map(Some).chain([None]));
    if let Some((line, (wanted, found))) = (1..).zip(differs).find(|(_, (wanted, found))| wanted != found) {
        panic!(
            "{name}, line {line}:\n  wanted: {}\n  found:  {}\nIf that is right: NETPOLL_PROBE_BLESS=1 cargo test -p netpoll-probe report",
            wanted.unwrap_or("(end)"),
            found.unwrap_or("(end)")
        );
    }
    assert_eq!(wanted, found);
}

#[test]
fn text_of_the_shop() {
    golden("shop.txt", &text(&finish(sample::shop()), &Options::default()));
}

#[test]
fn text_at_80_columns_with_idle_waits() {
    let options = Options { include_idle: true, width: 80, ..Options::default() };
    golden("shop-idle-80.txt", &text(&finish(sample::shop()), &options));
}

#[test]
fn text_in_color_by_function() {
    let options = Options { group_by: Some(Dimension::Function), color: true, ..Options::default() };
    golden("shop-by-function-color.txt", &text(&finish(sample::shop()), &options));
}

#[test]
fn text_of_other_cases() {
    for (name, recording) in [
        ("starved.txt", sample::starved_shop()),
        ("blind.txt", sample::blind_shop()),
        ("resting.txt", sample::resting_shop()),
        ("silent.txt", sample::silent_shop()),
    ] {
        golden(name, &text(&finish(recording), &Options::default()));
    }
}

#[test]
fn text_says_what_was_lost() {
    let lost = [("ring_full_wait".to_owned(), 1_204), ("slots_full".to_owned(), 3)].into();
    let unmatched = [("end_without_start".to_owned(), 17)].into();
    let quality = Quality { seen: 0, lost, unmatched, ..Quality::default() };
    golden("lossy.txt", &text(&sample::silent_shop().finish(quality), &Options::default()));
}

/// The shop, whose waits were added up in the kernel after a while.
fn added_up() -> Profile {
    let mut profile = finish(sample::shop());
    profile.quality.added_in_kernel = 1_204;
    let change = BudgetChange { after_ns: 221_000_000, cost_ppm: 13_000, busy_one_in: 1, adds_up: true };
    profile.cost.budget = Some(Budget { most_ppm: 10_000, last_ppm: Some(9_400), changes: vec![change] });
    profile
}

#[test]
fn text_says_what_was_added_up() {
    golden("aggregated.txt", &text(&added_up(), &Options::default()));
    let json: Value =
        serde_json::from_str(&rendered(&added_up(), Format::Json, &Options::default())).unwrap();
    assert_eq!(json["cost"]["budget"]["changes"][0]["adds_up"], true);
    assert_eq!(json["quality"]["added_in_kernel"], 1_204);
}

/// What the silent shop was allowed to cost.
fn within_a_budget() -> Profile {
    let quality = Quality { not_followed: 48_211, ..Quality::default() };
    let mut profile = sample::silent_shop().finish(quality);
    let change =
        |after_ns, cost_ppm, busy_one_in| BudgetChange { after_ns, cost_ppm, busy_one_in, adds_up: false };
    let changes = vec![change(221_000_000, 52_000, 8), change(1_240_000_000, 3_100, 4)];
    profile.cost.budget = Some(Budget { most_ppm: 10_000, last_ppm: Some(9_400), changes });
    profile
}

#[test]
fn text_says_what_was_not_followed() {
    golden("budget.txt", &text(&within_a_budget(), &Options::default()));
    let json = rendered(&within_a_budget(), Format::Json, &Options::default());
    let budget = serde_json::from_str::<Value>(&json).unwrap()["cost"]["budget"].take();
    assert_eq!(budget["changes"][1]["busy_one_in"], 4);
}

#[test]
fn text_fits_its_width() {
    let profile = finish(sample::shop());
    for width in [76, 80, 100, 120, 200] {
        for group_by in [None, Some(Dimension::Fd), Some(Dimension::Outcome)] {
            let text = text(&profile, &Options { width, group_by, include_idle: true, ..Options::default() });
            let longest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
            assert!(longest.chars().count() <= width, "{width}: {longest}");
        }
    }
}

#[test]
fn nothing_of_a_target_steers_the_terminal() {
    let profile = finish(sample::shop());
    for dimension in Dimension::ALL {
        let options = Options { group_by: Some(dimension), ..Options::default() };
        for format in [Format::Text, Format::Svg, Format::Folded] {
            assert!(!rendered(&profile, format, &options).contains('\u{1b}'), "{format:?} by {dimension:?}");
        }
    }
}

#[test]
fn folded_of_the_shop() {
    golden("shop.folded", &rendered(&finish(sample::shop()), Format::Folded, &Options::default()));
    let options = Options { group_by: Some(Dimension::Peer), include_idle: true, ..Options::default() };
    golden("shop-by-peer.folded", &rendered(&finish(sample::shop()), Format::Folded, &options));
}

#[test]
fn folded_adds_up_in_every_grouping() {
    let profile = finish(sample::shop());
    for dimension in Dimension::ALL.into_iter().map(Some).chain([None]) {
        let options = Options { group_by: dimension, include_idle: true, ..Options::default() };
        let folded = rendered(&profile, Format::Folded, &options);
        let value = |line: &str| line.rsplit_once(' ').and_then(|(_, ns)| ns.parse::<u64>().ok()).unwrap();
        assert_eq!(folded.lines().map(value).sum::<u64>(), profile.totals(true).sums.total_ns());
        let phases = Phase::ALL.map(|phase| format!("[{phase}]"));
        assert!(folded.lines().all(|line| {
            let last = line.rsplit_once(' ').and_then(|(stack, _)| stack.rsplit(';').next());
            phases.iter().any(|phase| last == Some(phase))
        }));
    }
}

/// The picture without inferno's own script and style.
fn without_script(svg: &str) -> String {
    let mut text = svg.to_owned();
    for (begin, end) in [("<script", "</script>"), ("<style", "</style>")] {
        if let (Some(from), Some(to)) = (text.find(begin), text.find(end)) {
            text.replace_range(from..to + end.len(), "");
        }
    }
    text.replace("<g>", "\n<g>")
}

#[test]
fn svg_of_the_shop() {
    let profile = finish(sample::shop());
    golden("shop.svg", &without_script(&rendered(&profile, Format::Svg, &Options::default())));
    let options = Options { group_by: Some(Dimension::Peer), ..Options::default() };
    golden("shop-by-peer.svg", &without_script(&rendered(&profile, Format::Svg, &options)));
}

#[test]
fn svg_is_well_formed_whatever_the_names() {
    let profile = finish(sample::shop());
    for dimension in Dimension::ALL.into_iter().map(Some).chain([None]) {
        let options = Options { group_by: dimension, include_idle: true, ..Options::default() };
        let svg = rendered(&profile, Format::Svg, &options);
        let mut reader = quick_xml::Reader::from_str(&svg);
        let mut frames = 0;
        loop {
            match reader.read_event().unwrap() {
                quick_xml::events::Event::Eof => break,
                quick_xml::events::Event::Empty(element) => {
                    frames += usize::from(element.name().as_ref() == b"rect");
                }
                quick_xml::events::Event::Text(text) => {
                    text.decode().unwrap();
                }
                _ => {}
            }
        }
        assert!(frames > 20, "{frames} frames by {dimension:?}");
    }
}

#[test]
fn svg_of_nothing_is_a_picture_that_says_so() {
    golden("silent.svg", &rendered(&finish(sample::silent_shop()), Format::Svg, &Options::default()));
}

#[test]
fn ndjson_of_the_shop() {
    let recording = sample::shop();
    let lines = ndjson(&recording);
    // A few of each kind will do.
    let seldom = lines.lines().enumerate().filter(|(number, _)| number % 211 == 0 || *number > 2_343);
    golden("shop.ndjson", &seldom.map(|(_, line)| format!("{line}\n")).collect::<String>());
    assert_eq!(lines.lines().count(), recording.waits.len());
}

#[test]
fn json_of_the_shop() {
    /// Of long lists their beginning.
    fn shorten(value: &mut Value) {
        match value {
            Value::Object(object) => object.values_mut().for_each(shorten),
            Value::Array(values) => {
                values.truncate(2);
                values.iter_mut().for_each(shorten);
            }
            _ => {}
        }
    }
    let json = rendered(&finish(sample::shop()), Format::Json, &Options::default());
    assert_eq!(json.lines().count(), 1);
    let mut summary: Value = serde_json::from_str(&json).unwrap();
    for part in ["groups", "open", "totals", "idle"] {
        shorten(&mut summary[part]);
    }
    golden("shop.json", &(serde_json::to_string_pretty(&summary).unwrap() + "\n"));
}

/// A validator that takes no field which the schema does not name: an added field must be described.
pub(super) fn strict(schema: &str) -> Validator {
    fn close(value: &mut Value) {
        match value {
            Value::Object(object) => {
                if object.contains_key("properties") {
                    object.insert("unevaluatedProperties".to_owned(), json!(false));
                }
                object.values_mut().for_each(close);
            }
            Value::Array(values) => values.iter_mut().for_each(close),
            _ => {}
        }
    }
    let mut schema: Value = serde_json::from_str(schema).unwrap();
    // Definitions that others are made of stay open; whoever uses them is closed.
    let definitions = schema.as_object_mut().unwrap().remove("$defs");
    close(&mut schema);
    if let Some(mut definitions) = definitions {
        for (name, definition) in definitions.as_object_mut().unwrap() {
            if name != "sums" {
                close(definition);
            }
        }
        schema["$defs"] = definitions;
    }
    jsonschema::validator_for(&schema).unwrap()
}

#[track_caller]
pub(super) fn assert_valid(validator: &Validator, value: &Value) {
    let errors: Vec<_> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn ndjson_is_as_its_schema_says() {
    let validator = strict(schema::WAIT);
    for line in ndjson(&sample::shop()).lines().chain(ndjson(&sample::blind_shop()).lines()) {
        assert_valid(&validator, &serde_json::from_str(line).unwrap());
    }
    let mut wrong: Value = serde_json::from_str(ndjson(&sample::shop()).lines().next().unwrap()).unwrap();
    wrong["outcome"] = json!("vanished");
    assert!(!validator.is_valid(&wrong));
}

#[test]
fn json_is_as_its_schema_says() {
    let validator = strict(schema::SUMMARY);
    let samples = [sample::shop(), sample::starved_shop(), sample::blind_shop(), sample::silent_shop()];
    for profile in samples.map(finish).into_iter().chain([within_a_budget(), added_up()]) {
        for include_idle in [false, true] {
            let options = Options { include_idle, ..Options::default() };
            let summary: Value = serde_json::from_str(&rendered(&profile, Format::Json, &options)).unwrap();
            assert_valid(&validator, &summary);
            assert_eq!(summary["schema"], schema::SUMMARY_NAME);
            for place in ["", "/totals", "/groups", "/quality", "/plan/clocks/0", "/targets/0"] {
                let mut more = summary.clone();
                more.pointer_mut(place).unwrap()["added"] = json!(1);
                assert!(!validator.is_valid(&more), "an undescribed field is found at {place}");
            }
        }
    }
}

#[test]
fn formats_are_found_by_extension_and_name() {
    for (path, format) in [
        ("w.txt", Format::Text),
        ("/tmp/a.b/w.JSON", Format::Json),
        ("w.ndjson", Format::Ndjson),
        ("w.v2.svg", Format::Svg),
        ("w.folded", Format::Folded),
    ] {
        assert_eq!(Format::of_path(path.as_ref()), Ok(format));
    }
    for path in ["w", "w.pdf", "json", "dir.svg/w", ".json"] {
        assert_eq!(Format::of_path(path.as_ref()), Err(FormatError::Extension { path: path.to_owned() }));
    }
    assert_eq!(
        Format::of_path("w.pdf".as_ref()).unwrap_err().to_string(),
        "no format has the extension of w.pdf; there are .txt .json .ndjson .svg .folded"
    );
    assert_eq!(
        "pdf".parse::<Format>().unwrap_err().to_string(),
        "no format is called \"pdf\"; there are txt json ndjson svg folded"
    );
}

#[test]
fn a_closed_pipe_is_an_error() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let profile = finish(sample::shop());
    for renderer in Format::ALL.into_iter().filter_map(Format::renderer) {
        let error = renderer(&profile, &Options::default(), &mut Closed).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }
}
