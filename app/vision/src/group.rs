//! Groups of labels: what detectors have several words for, and people one.
//!
//! A van is a car in one picture and a truck in the next, and often both at once. So overlapping boxes of one group are
//! one object, which keeps its track whatever its boxes are called; and a rule may name the group instead of each of its
//! labels. What is told of an object is always its label.

/// Each with its labels, as COCO has them.
const GROUPS: [(&str, &[&str]); 1] = [("vehicle", &["car", "motorcycle", "bus", "truck"])];

/// The group that this label belongs to.
pub fn group_of(label: &str) -> Option<&'static str> {
    GROUPS.iter().find(|(_, labels)| labels.contains(&label)).map(|(group, _)| *group)
}

/// Whether what is said of `name` is said of this label: it is the label itself, or its group.
pub fn covers(name: &str, label: &str) -> bool {
    name == label || group_of(label) == Some(name)
}

/// The groups that a model with these labels has, in which it has no label of that name itself.
pub fn groups(labels: &[String]) -> impl Iterator<Item = &'static str> {
    let names = GROUPS.iter().map(|(group, _)| *group);
    names.filter(|group| {
        labels.iter().any(|label| group_of(label) == Some(group))
            && !labels.iter().any(|label| label == group)
    })
}

/// For each class the first one that is of the same kind: itself, or one of its group. Only classes that are `wanted`
/// share a kind: whoever looks for cars alone does not lose one to a truck.
pub fn kinds(labels: &[String], wanted: impl Fn(&str) -> bool) -> Vec<u16> {
    let kind = |label: &str| group_of(label).unwrap_or(label).to_owned();
    let alike = |a: &str, b: &str| a == b || (wanted(a) && wanted(b) && kind(a) == kind(b));
    let first = |label: &String| labels.iter().position(|other| alike(other, label));
    let number = |class: usize| u16::try_from(class).unwrap_or(u16::MAX);
    labels.iter().enumerate().map(|(class, label)| number(first(label).unwrap_or(class))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(labels: &[&str]) -> Vec<String> {
        labels.iter().map(|&label| label.to_owned()).collect()
    }

    #[test]
    fn a_name_covers_its_label_or_the_labels_of_its_group() {
        for (name, label, expected) in [
            ("car", "car", true),
            ("vehicle", "car", true),
            ("vehicle", "truck", true),
            ("vehicle", "vehicle", true),
            ("car", "vehicle", false),
            ("car", "truck", false),
            ("vehicle", "bicycle", false),
            ("person", "car", false),
        ] {
            assert_eq!(covers(name, label), expected, "{name} {label}");
        }
    }

    #[test]
    fn wanted_labels_of_a_group_are_of_one_kind() {
        let labels = list(&["person", "car", "dog", "bus", "truck"]);
        let kinds = |wanted: &[&str]| kinds(&labels, |label| wanted.is_empty() || wanted.contains(&label));
        assert_eq!(kinds(&[]), [0, 1, 2, 1, 1]);
        assert_eq!(kinds(&["person", "bus", "truck"]), [0, 1, 2, 3, 3]);
        assert_eq!(kinds(&["car"]), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_model_has_a_group_when_it_has_labels_of_it_and_none_of_its_name() {
        let check = |labels: &[&str], expected: &[&str]| {
            assert_eq!(groups(&list(labels)).collect::<Vec<_>>(), expected, "{labels:?}");
        };
        check(&["person", "car"], &["vehicle"]);
        check(&["person", "vehicle"], &[]);
        check(&["vehicle", "car"], &[]);
        check(&["person", "dog"], &[]);
    }
}
