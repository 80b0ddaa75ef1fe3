#include "data/split.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "core/rng.h"
#include "text/unicode.h"

namespace tailor {
namespace {

/// Rows that must stay together, in the order of the data.
struct Unit {
  std::vector<std::uint32_t> rows;
  std::vector<std::pair<std::int32_t, std::size_t>> labels;  // label, rows with it
};

using Counts = std::vector<std::size_t>;  // per label

std::vector<Unit> make_units(std::span<const std::int32_t> labels, std::span<const std::uint32_t> groups,
                             std::span<const Part> given) {
  std::vector<Unit> units;
  std::unordered_map<std::uint32_t, std::size_t> unit_of_group;
  unit_of_group.reserve(labels.size());
  for (std::uint32_t row = 0; row < labels.size(); ++row) {
    if (!given.empty() && given[row] != Part::kTrain) continue;
    const auto [entry, added] = unit_of_group.emplace(groups[row], units.size());
    if (added) units.emplace_back();
    Unit& unit = units[entry->second];
    unit.rows.push_back(row);
    const auto same =
        std::find_if(unit.labels.begin(), unit.labels.end(), [&](const auto& l) { return l.first == labels[row]; });
    if (same != unit.labels.end())
      ++same->second;
    else
      unit.labels.emplace_back(labels[row], 1);
  }
  return units;
}

struct LabelSizes {
  Counts rows, units;
};
LabelSizes count_labels(const std::vector<Unit>& units, std::size_t labels) {
  LabelSizes sizes{Counts(labels, 0), Counts(labels, 0)};
  for (const Unit& unit : units) {
    for (const auto& [label, rows] : unit.labels) {
      sizes.rows[static_cast<std::size_t>(label)] += rows;
      ++sizes.units[static_cast<std::size_t>(label)];
    }
  }
  return sizes;
}

/// Rows of each class that a part of this fraction should have, leaving `reserved` and two more for training.
Counts part_sizes(const LabelSizes& sizes, double fraction, const Counts& reserved) {
  Counts target(sizes.rows.size(), 0);
  if (fraction <= 0) return target;
  for (std::size_t label = 0; label < target.size(); ++label) {
    const std::size_t rows = sizes.rows[label];
    if (sizes.units[label] < 2 || rows < 3) continue;
    const auto wanted =
        std::max<std::size_t>(1, static_cast<std::size_t>(std::floor(static_cast<double>(rows) * fraction + 0.5)));
    const std::size_t available = rows > reserved[label] + 2 ? rows - reserved[label] - 2 : 0;
    target[label] = std::min(wanted, available);
  }
  return target;
}

/// Order in which units are dealt: shuffled, those of several rows first, the largest of them before the others.
std::vector<std::size_t> deal_order(const std::vector<Unit>& units, Rng rng) {
  std::vector<std::size_t> order(units.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  rng.shuffle(order);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return units[a].rows.size() > units[b].rows.size(); });
  return order;
}

class Holdout {
 public:
  Holdout(const std::vector<Unit>& units, const LabelSizes& sizes, Counts test, Counts validation, double test_fraction,
          double validation_fraction, std::uint64_t seed)
      : units_(units), sizes_(sizes), part_(units.size(), Part::kTrain), rng_(seed, 2) {
    wanted_[0] = std::move(test);
    wanted_[1] = std::move(validation);
    fraction_[0] = test_fraction;
    fraction_[1] = validation_fraction;
    for (auto& got : got_) got.assign(sizes.rows.size(), 0);
  }

  std::vector<Part> run(const std::vector<std::size_t>& order) {
    for (const std::size_t u : order) deal(u);
    for (const std::size_t which : {0, 1}) fill_empty_classes(which, order);
    return std::move(part_);
  }

 private:
  static Part part_of(std::size_t which) { return which == 0 ? Part::kTest : Part::kValidation; }

  bool fits(const Unit& unit, std::size_t which) const {
    return std::all_of(unit.labels.begin(), unit.labels.end(), [&](const auto& l) {
      const auto label = static_cast<std::size_t>(l.first);
      return got_[which][label] + l.second <= wanted_[which][label];
    });
  }
  void put(std::size_t u, std::size_t which) {
    part_[u] = part_of(which);
    for (const auto& [label, rows] : units_[u].labels) got_[which][static_cast<std::size_t>(label)] += rows;
  }

  void deal(std::size_t u) {
    const Unit& unit = units_[u];
    if (unit.rows.size() == 1) {  // singles come last and fill the classes exactly
      for (const std::size_t which : {0, 1}) {
        if (fits(unit, which)) return put(u, which);
      }
      return;
    }
    // Groups fall by chance in proportion, so that copies are as common in the test part as they are in the data.
    const double draw = rng_.uniform();
    if (draw < fraction_[0]) {
      if (fits(unit, 0)) put(u, 0);
    } else if (draw < fraction_[0] + fraction_[1] && fits(unit, 1)) {
      put(u, 1);
    }
  }

  /// A class whose groups were all larger than its share: its smallest group moves, if training keeps another.
  void fill_empty_classes(std::size_t which, const std::vector<std::size_t>& order) {
    for (std::size_t label = 0; label < sizes_.rows.size(); ++label) {
      if (wanted_[which][label] == 0 || got_[which][label] > 0) continue;
      for (auto it = order.rbegin(); it != order.rend(); ++it) {
        const Unit& unit = units_[*it];
        const bool has = std::any_of(unit.labels.begin(), unit.labels.end(),
                                     [&](const auto& l) { return static_cast<std::size_t>(l.first) == label; });
        if (!has || part_[*it] != Part::kTrain || !training_can_spare(unit)) continue;
        put(*it, which);
        break;
      }
    }
  }
  bool training_can_spare(const Unit& unit) const {
    return std::all_of(unit.labels.begin(), unit.labels.end(), [&](const auto& l) {
      const auto label = static_cast<std::size_t>(l.first);
      return sizes_.rows[label] > got_[0][label] + got_[1][label] + l.second;
    });
  }

  const std::vector<Unit>& units_;
  const LabelSizes& sizes_;
  std::vector<Part> part_;  // per unit
  Rng rng_;
  Counts wanted_[2], got_[2];
  double fraction_[2] = {0, 0};
};

/// Folds of the training units: each class as even as its groups allow, then the folds as even as the classes allow.
int deal_folds(const std::vector<Unit>& units, const std::vector<std::size_t>& order, const std::vector<Part>& part,
               std::size_t labels, int most, std::vector<std::uint8_t>& fold_of_unit) {
  Counts unit_count(labels, 0);
  for (std::size_t u = 0; u < units.size(); ++u) {
    if (part[u] != Part::kTrain) continue;
    for (const auto& [label, rows] : units[u].labels) ++unit_count[static_cast<std::size_t>(label)];
  }
  auto folds = static_cast<std::size_t>(most);
  for (const std::size_t count : unit_count) {
    if (count >= 2) folds = std::min(folds, count);
  }
  std::vector<Counts> per_label(labels, Counts(folds, 0));
  Counts total(folds, 0);
  for (const std::size_t u : order) {
    if (part[u] != Part::kTrain) continue;
    const Unit& unit = units[u];
    const bool only = std::any_of(unit.labels.begin(), unit.labels.end(),
                                  [&](const auto& l) { return unit_count[static_cast<std::size_t>(l.first)] < 2; });
    if (only) continue;
    std::size_t best = 0;
    std::size_t best_same = 0;
    for (std::size_t k = 0; k < folds; ++k) {
      std::size_t same = 0;
      for (const auto& [label, rows] : unit.labels) same += per_label[static_cast<std::size_t>(label)][k];
      if (k == 0 || same < best_same || (same == best_same && total[k] < total[best])) {
        best = k;
        best_same = same;
      }
    }
    fold_of_unit[u] = static_cast<std::uint8_t>(best);
    total[best] += unit.rows.size();
    for (const auto& [label, rows] : unit.labels) per_label[static_cast<std::size_t>(label)][best] += rows;
  }
  return static_cast<int>(folds);
}

Status check_options(const SplitOptions& options) {
  const auto bad = [](std::string what, std::string hint) {
    return Error{ErrorCode::kInvalidArgument, std::move(what), std::move(hint)};
  };
  if (!(options.validation_fraction > 0 && options.validation_fraction < 1)) {
    return bad(
        fmt::format("the validation fraction is {}, expected a number between 0 and 1", options.validation_fraction),
        "0.15 is usual");
  }
  if (!(options.test_fraction >= 0 && options.test_fraction < 1)) {
    return bad(fmt::format("the test fraction is {}, expected 0 or more and less than 1", options.test_fraction),
               "0.2 is usual");
  }
  if (options.validation_fraction + options.test_fraction >= 1) {
    return bad(fmt::format("validation ({}) and test ({}) together leave no rows for training",
                           options.validation_fraction, options.test_fraction),
               "");
  }
  if (options.folds < 2 || options.folds >= kNoFold)
    return bad(fmt::format("{} folds were asked for, expected 2 to 254", options.folds), "5 is usual");
  return {};
}

}  // namespace

std::string_view name_of(Part part) {
  switch (part) {
    case Part::kTrain:
      return "train";
    case Part::kValidation:
      return "validation";
    case Part::kTest:
      return "test";
  }
  return "train";
}
std::string_view name_of(SplitMode mode) {
  return mode == SplitMode::kHoldout ? "holdout" : "kfold";
}

std::vector<std::uint32_t> SplitPlan::rows_of(Part wanted) const {
  std::vector<std::uint32_t> rows;
  for (std::uint32_t row = 0; row < part.size(); ++row) {
    if (part[row] == wanted) rows.push_back(row);
  }
  return rows;
}
std::vector<std::uint32_t> SplitPlan::fold_train(int k) const {
  std::vector<std::uint32_t> rows;
  for (std::uint32_t row = 0; row < part.size(); ++row) {
    if (part[row] == Part::kTrain && fold[row] != k) rows.push_back(row);
  }
  return rows;
}
std::vector<std::uint32_t> SplitPlan::fold_held_out(int k) const {
  std::vector<std::uint32_t> rows;
  for (std::uint32_t row = 0; row < part.size(); ++row) {
    if (part[row] == Part::kTrain && fold[row] == k) rows.push_back(row);
  }
  return rows;
}

Result<SplitPlan> make_split(std::span<const std::int32_t> labels, std::span<const std::uint32_t> groups,
                             const SplitOptions& options, std::span<const Part> given) {
  TAILOR_CHECK(check_options(options));
  if (labels.size() != groups.size() || (!given.empty() && given.size() != labels.size())) {
    throw Exception(
        {ErrorCode::kInternal,
         fmt::format("make_split: {} labels, {} groups, {} given parts", labels.size(), groups.size(), given.size()),
         ""});
  }
  const bool test_given = std::find(given.begin(), given.end(), Part::kTest) != given.end();
  const bool validation_given = std::find(given.begin(), given.end(), Part::kValidation) != given.end();
  const std::size_t label_count =
      labels.empty() ? 0 : static_cast<std::size_t>(*std::max_element(labels.begin(), labels.end())) + 1;

  const std::vector<Unit> units = make_units(labels, groups, given);
  const LabelSizes sizes = count_labels(units, label_count);
  if (std::count_if(sizes.rows.begin(), sizes.rows.end(), [](std::size_t n) { return n > 0; }) < 2) {
    return Error{ErrorCode::kInvalidArgument, "the training rows have a single label, expected at least two",
                 "a classifier needs rows of two labels or more"};
  }

  const double test_fraction = test_given ? 0 : options.test_fraction;
  const Counts test = part_sizes(sizes, test_fraction, Counts(label_count, 0));
  std::size_t smallest = labels.size();
  for (std::size_t label = 0; label < label_count; ++label) {
    if (sizes.rows[label] > 0) smallest = std::min(smallest, sizes.rows[label] - test[label]);
  }
  SplitPlan plan;
  plan.seed = options.seed;
  plan.mode =
      !validation_given && smallest < options.min_rows_per_class_for_holdout ? SplitMode::kKFold : SplitMode::kHoldout;
  const double validation_fraction =
      validation_given || plan.mode == SplitMode::kKFold ? 0 : options.validation_fraction;
  const Counts validation = part_sizes(sizes, validation_fraction, test);

  const std::vector<std::size_t> order = deal_order(units, Rng(options.seed, 1));
  const std::vector<Part> part_of_unit =
      Holdout(units, sizes, test, validation, test_fraction, validation_fraction, options.seed).run(order);
  std::vector<std::uint8_t> fold_of_unit(units.size(), kNoFold);
  if (plan.mode == SplitMode::kKFold)
    plan.folds = deal_folds(units, order, part_of_unit, label_count, options.folds, fold_of_unit);

  plan.part.assign(given.begin(), given.end());
  plan.part.resize(labels.size(), Part::kTrain);
  plan.fold.assign(labels.size(), kNoFold);
  for (std::size_t u = 0; u < units.size(); ++u) {
    for (const std::uint32_t row : units[u].rows) {
      plan.part[row] = part_of_unit[u];
      plan.fold[row] = fold_of_unit[u];
    }
  }
  return plan;
}

Result<SplitPlan> make_split(const Dataset& data, const DuplicateGroups& duplicates, const SplitOptions& options,
                             std::span<const Part> given) {
  TAILOR_TRY(SplitPlan plan, make_split(data.labels, duplicates.group, options, given));
  const std::size_t label_count = data.label_names.size();
  Counts rows[3], train_groups(label_count, 0);
  for (auto& counts : rows) counts.assign(label_count, 0);
  std::vector<std::int64_t> last_group(label_count, -1);
  std::vector<std::uint32_t> line(label_count, 0);
  for (std::size_t row = 0; row < data.size(); ++row) {
    const auto label = static_cast<std::size_t>(data.labels[row]);
    ++rows[static_cast<std::size_t>(plan.part[row])][label];
    if (plan.part[row] != Part::kTrain) continue;
    if (last_group[label] != duplicates.group[row]) ++train_groups[label];
    last_group[label] = duplicates.group[row];
    if (line[label] == 0) line[label] = data.lines[row];
  }
  const auto report = [&](std::string code, std::string_view why, std::string hint, const auto& concerns) {
    std::vector<std::string> names;
    std::vector<std::uint32_t> lines;
    std::size_t count = 0;
    for (std::size_t label = 0; label < label_count; ++label) {
      if (!concerns(label)) continue;
      ++count;
      if (names.size() >= kExampleLines) continue;
      names.push_back(fmt::format("'{}'", shorten(data.label_names[label], 60)));
      if (line[label] != 0) lines.push_back(line[label]);
    }
    if (count == 0) return;
    plan.findings.push_back({Severity::kWarning, std::move(code),
                             fmt::format("{} label{} {}: {}{}", count, count == 1 ? "" : "s", why,
                                         fmt::join(names, ", "), count > names.size() ? ", …" : ""),
                             std::move(hint), count, std::move(lines)});
  };
  const auto& train = rows[0];
  const auto& validation = rows[1];
  const auto& test = rows[2];
  const bool has_test = std::find(plan.part.begin(), plan.part.end(), Part::kTest) != plan.part.end();
  const auto train_only = [&](std::size_t label) {
    return train_groups[label] == 1 && validation[label] == 0 && test[label] == 0;
  };
  report("train_only_class", "with a single row (or copies of one) can be used for training only",
         "add rows; ten a label are a start", train_only);
  if (has_test) {
    report("class_not_in_test", "with training rows cannot be tested, since the test part has none of them",
           "add rows of these labels",
           [&](std::size_t label) { return train[label] > 0 && test[label] == 0 && !train_only(label); });
  }
  if (plan.mode == SplitMode::kHoldout) {
    report("class_not_in_validation",
           "with training rows cannot be validated, since the validation part has none of them",
           "add rows of these labels",
           [&](std::size_t label) { return train[label] > 0 && validation[label] == 0 && !train_only(label); });
  } else {
    const auto smallest =
        static_cast<std::size_t>(std::min_element(train.begin(), train.end(),
                                                  [](std::size_t a, std::size_t b) {
                                                    return (a == 0 ? SIZE_MAX : a) < (b == 0 ? SIZE_MAX : b);
                                                  }) -
                                 train.begin());
    plan.findings.push_back(
        {Severity::kNote,
         "kfold",
         fmt::format("choices are made by {}-fold cross-validation, since '{}' has only {} training row{}", plan.folds,
                     shorten(data.label_names[smallest], 60), train[smallest], train[smallest] == 1 ? "" : "s"),
         "",
         train[smallest],
         {}});
  }
  return plan;
}

}  // namespace tailor
