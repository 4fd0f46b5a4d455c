//! Max-min fair division of whole slots.

/// Divides `slots` among `demands`: nobody gets more than asked for, and nobody who wants more has two less than
/// anybody else. Slots that do not divide evenly go round from `turn`, so that a caller who raises it shares them over
/// time. One entry per demand.
pub fn max_min(slots: u32, demands: &[u32], turn: usize) -> Vec<u32> {
    level(slots, demands, &vec![0; demands.len()], turn)
}

/// Like [`max_min`], but everybody begins at `held` (what cannot be taken away): the lowest are raised first, at most
/// to their demand, by `slots` altogether. Returns the new heights.
pub(super) fn level(slots: u32, demands: &[u32], held: &[u32], turn: usize) -> Vec<u32> {
    let mut heights = held.to_vec();
    let mut left = slots;
    let count = demands.len();
    while left > 0 {
        // All that are lowest among the unsatisfied rise together, to the next obstacle.
        let open = |i: &usize| heights[*i] < demands[*i];
        let Some(low) = (0..count).filter(open).map(|i| heights[i]).min() else { break };
        let risers: Vec<usize> =
            (0..count).map(|i| (i + turn) % count).filter(|i| open(i) && heights[*i] == low).collect();
        let next = (0..count)
            .filter(open)
            .flat_map(|i| [heights[i], demands[i]])
            .filter(|h| *h > low)
            .min()
            .expect("a demand of an unsatisfied one is above it");
        let each = (next - low).min(left / risers.len() as u32);
        if each == 0 {
            for i in risers.into_iter().take(left as usize) {
                heights[i] += 1;
            }
            break;
        }
        left -= each * risers.len() as u32;
        for i in risers {
            heights[i] += each;
        }
    }
    heights
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_demands_are_met_and_the_rest_is_shared_evenly() {
        assert_eq!(max_min(16, &[2, 100, 100], 0), [2, 7, 7]);
        assert_eq!(max_min(8, &[100], 0), [8]);
        assert_eq!(max_min(3, &[1, 1], 0), [1, 1]);
        assert_eq!(max_min(0, &[5], 0), [0]);
        assert_eq!(max_min(4, &[], 3), [0; 0]);
    }

    #[test]
    fn the_odd_slot_goes_round() {
        assert_eq!(max_min(1, &[9, 9, 9], 0), [1, 0, 0]);
        assert_eq!(max_min(1, &[9, 9, 9], 1), [0, 1, 0]);
        assert_eq!(max_min(5, &[9, 9, 9], 2), [2, 1, 2]);
    }

    #[test]
    fn what_is_held_counts_first() {
        assert_eq!(level(4, &[8, 8], &[6, 0], 0), [6, 4]);
        assert_eq!(level(10, &[8, 8], &[6, 0], 0), [8, 8]);
        assert_eq!(level(2, &[8, 8, 1], &[1, 1, 0], 0), [2, 1, 1]);
    }

    proptest! {
        #[test]
        fn nobody_has_two_less_than_another_while_wanting_more(
            slots in 0u32..300, demands in prop::collection::vec(0u32..60, 0..20), turn in 0usize..40,
        ) {
            let shares = max_min(slots, &demands, turn);
            let total: u32 = demands.iter().sum();
            prop_assert_eq!(shares.iter().sum::<u32>(), slots.min(total));
            for (share, demand) in shares.iter().zip(&demands) {
                prop_assert!(share <= demand);
                prop_assert!(share == demand || shares.iter().all(|other| *other <= share + 1));
            }
        }
    }
}
