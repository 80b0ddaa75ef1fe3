#pragma once
/// Which candidate to use, and why. Made on validation rows only; the test part proves it and is never asked.
///
/// 1. Candidates outside the user's limits (latency, size, memory) are set aside; latency and memory are measured on
///    validation texts.
/// 2. The best of the rest by the user's metric on validation is found on the rows that all of them answered.
/// 3. Every other is compared with it on their common rows (McNemar for accuracy, paired permutation otherwise). It is
///    "not really worse" when the difference is not significant at 5 % *and* is at most the tie margin (0.5 points
///    unless the user says otherwise): with few validation rows almost nothing is significant, and the margin keeps a
///    cheap candidate from winning by lack of evidence.
/// 4. Among those the cheapest wins, by cost per thousand requests in steps of a factor of 1.5. At about the same cost
///    the simpler wins, unless its probabilities are really worse: log loss, paired, 5 %. It is a sharper measure than
///    the share of right answers, and at the same cost nothing would be gained by giving it up.

#include <string>
#include <vector>

#include "core/result.h"
#include "eval/metric.h"
#include "fit/options.h"
#include "fit/predictions.h"
#include "fit/trial.h"

namespace tailor {

struct CandidateStanding {
  std::string id;
  bool within_limits = true;
  std::string limit;      // which limit it breaks, one sentence; empty when none
  double difference = 0;  // validation score less the best's, on common rows
  double p_value = 1;
  std::size_t n_common = 0;
  bool tied = false;  // not really worse than the best
};

struct Decision {
  std::string recommended;  // id; empty when no candidate is ok
  std::string best;         // id of the best on validation within the limits
  std::vector<CandidateStanding> standings;
  std::string reason;                     // plain sentences
  std::vector<std::string> would_change;  // "A limit of 2 ms for p95 would make … the choice."
};

/// `validation[i]` belongs to `records[i]`; records that are not ok are passed over.
Result<Decision> decide(const std::vector<TrialRecord>& records, const std::vector<Predictions>& validation,
                        const FitOptions& options, const Metric& metric, int classes);

/// After the test part was scored: p-values and verdicts against the candidate that scored best *on test*, on common
/// rows. For the report; the decision stands.
Status compare_on_test(std::vector<TrialRecord>& records, const std::vector<Predictions>& test, const Metric& metric,
                       int classes, std::uint64_t seed);

}  // namespace tailor
