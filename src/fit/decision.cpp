#include "fit/decision.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "eval/paired.h"
#include "fit/budget.h"
#include "fit/candidates.h"

namespace tailor {
namespace {

constexpr double kAlpha = 0.05;
constexpr double kCostStep = 1.5;           // costs closer than this factor are the same to a business
constexpr double kLeastProbability = 1e-4;  // one answer that is too sure of itself does not decide

std::string limit_broken(const TrialRecord& r, const FitOptions& o) {
  if (o.max_latency_ms > 0 && r.latency_p95_ms > o.max_latency_ms) {
    return fmt::format("p95 latency {:.1f} ms is above the limit of {:.1f} ms", r.latency_p95_ms, o.max_latency_ms);
  }
  if (o.max_size_bytes > 0 && r.package_bytes > o.max_size_bytes) {
    return fmt::format("its package of {} is above the limit of {}", human_bytes(static_cast<double>(r.package_bytes)),
                       human_bytes(static_cast<double>(o.max_size_bytes)));
  }
  if (o.max_memory_bytes > 0 && r.serve_memory_bytes > o.max_memory_bytes) {
    return fmt::format("answering takes {} of memory, above the limit of {}",
                       human_bytes(static_cast<double>(r.serve_memory_bytes)),
                       human_bytes(static_cast<double>(o.max_memory_bytes)));
  }
  return "";
}

int simplicity(const TrialRecord& r) {
  const Candidate* candidate = find_candidate_method(r.method);
  return candidate == nullptr ? 1000 : candidate->simplicity;
}

/// How many times dearer a is than b.
double cost_ratio(const TrialRecord& a, const TrialRecord& b) {
  const double low = 1e-9;
  return std::max(a.cost_per_thousand, low) / std::max(b.cost_per_thousand, low);
}

bool simpler(const TrialRecord& a, const TrialRecord& b) {
  if (simplicity(a) != simplicity(b)) return simplicity(a) < simplicity(b);
  return a.cost_per_thousand < b.cost_per_thousand;
}

/// Whether a's probabilities are really worse than b's on the rows that both answered.
bool worse_probabilities(const Predictions& a, const Predictions& b, std::uint64_t seed) {
  std::map<std::int64_t, std::size_t> row_of_b;
  for (std::size_t i = 0; i < b.size(); ++i) row_of_b[b.rows[i]] = i;
  const auto loss = [](const Predictions& p, std::size_t i) {
    const float of_truth = p.probabilities.row(i)[static_cast<std::size_t>(p.truth[i])];
    return -std::log(std::max(static_cast<double>(of_truth), kLeastProbability));
  };
  std::vector<double> losses_a, losses_b;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto at = row_of_b.find(a.rows[i]);
    if (at == row_of_b.end() || a.truth[i] < 0) continue;
    losses_a.push_back(loss(a, i));
    losses_b.push_back(loss(b, at->second));
  }
  const PairedResult result = paired_losses(losses_a, losses_b, {.seed = seed});
  return result.difference > 0 && result.p_value < kAlpha;
}

/// As the table's titles say it: "LoRA with a classification head (all-minilm-l6-v2)".
std::string name_of_trial(const TrialRecord& r) {
  const Candidate* candidate = find_candidate_method(r.method);
  const std::string title = candidate == nullptr ? r.method : std::string(candidate->title);
  return r.base_model.empty() ? title : title + " (" + r.base_model + ")";
}

/// Why a tie goes to `chosen`.
std::string why_cheaper(const TrialRecord& chosen, const TrialRecord& best) {
  const double ratio = std::max(best.cost_per_thousand, 1e-12) / std::max(chosen.cost_per_thousand, 1e-12);
  if (ratio >= kCostStep) return fmt::format("costs {:.1f} times less to run", ratio);
  return "is simpler, at about the same cost to run, with probabilities that are no worse";
}

std::string shown(const Metric& metric, double score) {
  return metric.kind() == Metric::Kind::kCost ? fmt::format("{:.3f} cost a row", metric.shown(score))
                                              : fmt::format("{:.1f} % {}", 100 * score, metric.name());
}

std::string shown_difference(const Metric& metric, double difference) {
  return metric.kind() == Metric::Kind::kCost ? fmt::format("{:.3f} in cost a row", std::abs(difference))
                                              : fmt::format("{:.1f} points", 100 * std::abs(difference));
}

struct Ranking {
  std::size_t best;
  std::size_t recommended;
};

/// The rule of the header on the records named by `eligible`.
Result<std::optional<Ranking>> rank(const std::vector<TrialRecord>& records, const std::vector<Predictions>& validation,
                                    const std::vector<std::size_t>& eligible, const FitOptions& options,
                                    const Metric& metric, int classes, std::vector<CandidateStanding>& standings) {
  if (eligible.empty()) return std::optional<Ranking>();
  // A candidate that was scored on few rows is not compared by its own sample (other rows, other luck) but by its
  // paired difference to the candidate with the most rows; and it must be really better to come out on top.
  std::size_t anchor = eligible.front();
  for (const std::size_t i : eligible) {
    if (validation[i].size() > validation[anchor].size() ||
        (validation[i].size() == validation[anchor].size() &&
         records[i].validation_score > records[anchor].validation_score)) {
      anchor = i;
    }
  }
  std::size_t best = anchor;
  double best_gain = 0;
  const PairedOptions paired{.seed = options.seed};
  for (const std::size_t i : eligible) {
    if (i == anchor) continue;
    TAILOR_TRY(const PairedResult against,
               compare_paired(metric, answers_of(validation[i]), answers_of(validation[anchor]), classes, paired));
    const bool same_rows = static_cast<std::size_t>(against.n_common) == validation[anchor].size();
    if (against.difference > best_gain && (same_rows || (against.n_common > 0 && against.p_value < kAlpha))) {
      best_gain = against.difference;
      best = i;
    }
  }
  std::size_t recommended = best;
  for (const std::size_t i : eligible) {
    CandidateStanding& standing = standings[i];
    if (i == best) {
      standing.tied = true;
      standing.n_common = validation[i].size();
      standing.difference = 0;
      standing.p_value = 1;
      continue;
    }
    TAILOR_TRY(const PairedResult against,
               compare_paired(metric, answers_of(validation[i]), answers_of(validation[best]), classes, paired));
    standing.difference = against.difference;
    standing.p_value = against.p_value;
    standing.n_common = static_cast<std::size_t>(against.n_common);
    standing.tied =
        against.n_common > 0 && against.p_value >= kAlpha && against.difference >= -options.tie_margin - 1e-12;
    if (!standing.tied) continue;
    const double ratio = cost_ratio(records[i], records[recommended]);
    const bool same_cost = ratio <= kCostStep && ratio >= 1 / kCostStep;
    if (ratio < 1 / kCostStep || (same_cost && simpler(records[i], records[recommended]) &&
                                  !worse_probabilities(validation[i], validation[recommended], options.seed))) {
      recommended = i;
    }
  }
  return std::optional<Ranking>(Ranking{best, recommended});
}

std::string explain(const std::vector<TrialRecord>& records, const std::vector<CandidateStanding>& standings,
                    const Ranking& ranking, const Metric& metric, const FitOptions& options) {
  const TrialRecord& chosen = records[ranking.recommended];
  const TrialRecord& best = records[ranking.best];
  std::string text;
  if (ranking.recommended == ranking.best) {
    text = fmt::format("{} scores highest on the validation rows ({})", name_of_trial(chosen),
                       shown(metric, chosen.validation_score));
    std::size_t ties = 0;
    for (const auto& s : standings) ties += s.tied && s.within_limits ? 1 : 0;
    text += ties > 1 ? fmt::format(", and of the {} that tie with it none is cheaper to run.", ties)
                     : ", and no other candidate ties with it.";
  } else {
    const CandidateStanding& standing = standings[ranking.recommended];
    text = fmt::format(
        "{} is not really worse than the best, {} ({} less on {} common validation rows, p = {:.2f}), and {}.",
        name_of_trial(chosen), name_of_trial(best), shown_difference(metric, standing.difference), standing.n_common,
        standing.p_value, why_cheaper(chosen, best));
    if (standing.difference >= 0) {
      text = fmt::format("{} does as well as the best, {}, on {} common validation rows, and {}.",
                         name_of_trial(chosen), name_of_trial(best), standing.n_common, why_cheaper(chosen, best));
    }
  }
  text += chosen.latency_p95_ms < 0.1 ? std::string(" One answer takes under 0.1 ms on this machine.")
                                      : fmt::format(" One answer takes {:.1f} ms (p95 {:.1f} ms) on this machine.",
                                                    chosen.latency_p50_ms, chosen.latency_p95_ms);
  if (!chosen.base_model.empty() && options.max_latency_ms <= 0) {
    const auto floor = std::find_if(records.begin(), records.end(),
                                    [](const TrialRecord& r) { return r.method == "tfidf" && r.ok(); });
    if (floor != records.end()) {
      const CandidateStanding& s = standings[static_cast<std::size_t>(floor - records.begin())];
      if (!s.tied)
        text += fmt::format(" The floor without any language model, TF-IDF with a linear model, is {} behind the best.",
                            shown_difference(metric, s.difference));
    }
  }
  return text;
}

}  // namespace

Result<Decision> decide(const std::vector<TrialRecord>& records, const std::vector<Predictions>& validation,
                        const FitOptions& options, const Metric& metric, int classes) {
  Decision decision;
  decision.standings.resize(records.size());
  std::vector<std::size_t> within, all_ok;
  for (std::size_t i = 0; i < records.size(); ++i) {
    CandidateStanding& standing = decision.standings[i];
    standing.id = records[i].id;
    if (!records[i].ok() || validation[i].size() == 0) continue;
    all_ok.push_back(i);
    standing.limit = limit_broken(records[i], options);
    standing.within_limits = standing.limit.empty();
    if (standing.within_limits) within.push_back(i);
  }
  if (all_ok.empty()) {
    decision.reason = "No candidate finished, so there is nothing to recommend.";
    return decision;
  }
  const bool none_within = within.empty();
  TAILOR_TRY(const auto ranking,
             rank(records, validation, none_within ? all_ok : within, options, metric, classes, decision.standings));
  decision.best = records[ranking->best].id;
  decision.recommended = records[ranking->recommended].id;
  decision.reason = explain(records, decision.standings, *ranking, metric, options);
  if (none_within) decision.reason = "No candidate keeps your limits; without them: " + decision.reason;

  // What would change the answer: each limit on or off, cost not counted, quality not counted.
  const auto add = [&](const std::string& sentence) {
    if (std::find(decision.would_change.begin(), decision.would_change.end(), sentence) == decision.would_change.end())
      decision.would_change.push_back(sentence);
  };
  if (ranking->best != ranking->recommended) {
    add(fmt::format("If the last {} matter more than cost, take {}.",
                    shown_difference(metric, decision.standings[ranking->recommended].difference),
                    name_of_trial(records[ranking->best])));
  }
  if (within.size() < all_ok.size() && !none_within) {
    std::vector<CandidateStanding> unlimited(records.size());
    TAILOR_TRY(const auto free_ranking, rank(records, validation, all_ok, options, metric, classes, unlimited));
    if (free_ranking->recommended != ranking->recommended) {
      const std::size_t other = free_ranking->recommended;
      add(fmt::format("Without your limits it would be {} ({}).", name_of_trial(records[other]),
                      decision.standings[other].limit));
    }
  }
  const TrialRecord& chosen = records[ranking->recommended];
  std::size_t faster = records.size();
  for (const std::size_t i : none_within ? all_ok : within) {
    if (records[i].method == "majority") continue;  // nobody trades all quality for speed
    if (records[i].latency_p95_ms < 0.67 * chosen.latency_p95_ms &&
        (faster == records.size() || records[i].validation_score > records[faster].validation_score))
      faster = i;
  }
  if (faster < records.size()) {
    add(fmt::format("A latency limit below {:.1f} ms (p95) would make it {} ({} on validation).", chosen.latency_p95_ms,
                    name_of_trial(records[faster]), shown(metric, records[faster].validation_score)));
  }
  std::size_t further = 0;
  double least = 0;
  for (const TrialRecord& r : records) {
    if (r.status != TrialStatus::kSkipped || r.estimated_seconds <= 0) continue;
    const Candidate* candidate = find_candidate_method(r.method);
    if (candidate != nullptr && !candidate->usual) {
      least = further == 0 ? r.estimated_seconds : std::min(least, r.estimated_seconds);
      ++further;
    } else {
      add(fmt::format("{} was not tried; a larger budget (it alone needs about {}) could change the answer.",
                      name_of_trial(r), human_seconds(r.estimated_seconds)));
    }
  }
  if (further > 0) {
    add(fmt::format("{} beyond the usual candidates {} not tried (the cheapest needs about {}); --method names them.",
                    further, further == 1 ? "was" : "were", human_seconds(least)));
  }
  return decision;
}

Status compare_on_test(std::vector<TrialRecord>& records, const std::vector<Predictions>& test, const Metric& metric,
                       int classes, std::uint64_t seed) {
  std::size_t best = records.size();
  // The best on test is found among those with the most rows; others answered a subsample and are paired with it.
  std::size_t most = 0;
  for (std::size_t i = 0; i < records.size(); ++i) most = std::max(most, records[i].ok() ? records[i].n_scored : 0);
  for (std::size_t i = 0; i < records.size(); ++i) {
    if (!records[i].ok() || records[i].n_scored != most || most == 0) continue;
    if (best == records.size() || records[i].test_score > records[best].test_score) best = i;
  }
  if (best == records.size()) return {};
  for (std::size_t i = 0; i < records.size(); ++i) {
    if (!records[i].ok() || records[i].n_scored == 0) continue;
    if (i == best) {
      records[i].p_value = 1;
      records[i].verdict = "best";
      continue;
    }
    TAILOR_TRY(const PairedResult against,
               compare_paired(metric, answers_of(test[i]), answers_of(test[best]), classes, {.seed = seed}));
    records[i].p_value = against.p_value;
    records[i].verdict = against.p_value < kAlpha && against.difference < 0 ? "worse" : "tie";
  }
  return {};
}

}  // namespace tailor
