// What a run needs, found out before it is needed.

#include <ATen/Parallel.h>

#include <algorithm>

#include "core/files.h"
#include "core/json.h"
#include "core/process.h"
#include "core/system.h"
#include "tune/trainer.h"

namespace tailor::tune {
namespace {

constexpr std::size_t kMostRows = 1'000'000;  // looked at for the largest pass, and for the tokens that are left
constexpr std::int64_t kFirstSteps = 2, kProbe = 10;  // steps before those that the time is estimated by, and the last
constexpr std::size_t kPredictTokens = 8192;          // that fill a pass of any model's predictions
constexpr std::size_t kScoredTokens = 1536;           // or one of a decoder's label scores, which shares beginnings
constexpr std::size_t kPasses = 3;                    // the first one leaves holes that the next do not fit
constexpr double kMemoryMargin = 1.05;                // for what the heap still grows by

}  // namespace

std::vector<std::vector<std::int64_t>> Trainer::largest_passes() {
  std::vector<std::pair<std::int64_t, std::vector<std::int64_t>>> largest;  // tokens, rows; the smallest first
  std::size_t seen = 0;
  for (std::int64_t step = state_.step; step < total_steps_ && seen < kMostRows; ++step) {
    const RowSpan batch = order_.batch(step);
    seen += batch.size();
    for (const RowSpan part : micro_batches(file_, batch, job_.settings.micro_batch_tokens)) {
      const std::int64_t tokens = tokens_of(part);
      if (largest.size() == kPasses && tokens <= largest.front().first) continue;
      if (largest.size() == kPasses) largest.erase(largest.begin());
      largest.emplace_back(tokens, std::vector<std::int64_t>(part.begin(), part.end()));
      std::stable_sort(largest.begin(), largest.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    }
  }
  std::vector<std::vector<std::int64_t>> out;
  for (auto& [tokens, rows] : largest) out.push_back(std::move(rows));
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::int64_t> Trainer::longest_predicted() const {
  std::vector<std::int64_t> rows = validation_rows_;
  rows.insert(rows.end(), test_rows_.begin(), test_rows_.end());
  const auto length = [&](std::int64_t row) { return file_.row(static_cast<std::size_t>(row)).size(); };
  std::stable_sort(rows.begin(), rows.end(), [&](std::int64_t a, std::int64_t b) { return length(a) > length(b); });
  const std::size_t most = job_.task == Task::kCausalLmLabels ? kScoredTokens : kPredictTokens;
  std::size_t tokens = 0, count = 0;
  while (count < rows.size() && tokens < most) tokens += length(rows[count++]);
  rows.resize(count);
  return rows;
}

Status Trainer::rehearse() {
  if (state_.step >= total_steps_) return {};
  optimiser_.touch();
  average_.touch();
  bool first = true;
  for (const std::vector<std::int64_t>& rows : largest_passes()) {
    const StepContext context{
        .denominator = model_.weight(rows), .seed = job_.seed, .step = state_.step, .micro_batch = 0};
    if (context.denominator <= 0) continue;
    const double before = usage_so_far().cpu_seconds;
    pass(rows, context);
    model_.parameters().zero_grad();
    if (!first) continue;
    first = false;
    compare_visits(rows, context, usage_so_far().cpu_seconds - before);
    TAILOR_CHECK(rehearse_saving());  // before the other passes: they find the heap as it leaves it
  }

  // Allocations of the steps to come fall into other pages of the heap than these did, in the end into all of them.
  const MemoryNow now = memory_now();
  const auto peak = static_cast<double>(std::max(usage_so_far().peak_memory_bytes, now.resident + now.idle_heap));
  estimates_.peak_memory_bytes = static_cast<std::uint64_t>(peak * kMemoryMargin);
  events_({{"event", "estimate"}, {"step", state_.step}, {"peak_memory_bytes", estimates_.peak_memory_bytes}});
  return {};
}

Status Trainer::rehearse_saving() {
  // The prototypes of `contrastive` take a pass over all rows, as did its first step here.
  if (job_.method != "contrastive") model_.predict(longest_predicted());
  release_free_memory();
  const std::filesystem::path saved = job_.out / "checkpoint" / "rehearsal";
  TAILOR_CHECK(make_directories(saved));
  TAILOR_CHECK(model_.save(saved));
  return remove_tree(saved);
}

void Trainer::compare_visits(RowSpan rows, const StepContext& context, double seconds) {
  const bool keeps = model_.describe().contains("frozen_layers_kept");
  const bool mines = job_.method == "contrastive" && job_.settings.hard_negatives > 0;
  if (!keeps && !mines) return;
  const double before = usage_so_far().cpu_seconds;
  pass(rows, context);
  model_.parameters().zero_grad();
  const double again = usage_so_far().cpu_seconds - before;
  if (again <= 0 || again >= seconds) return;
  if (keeps) later_visit_ = again / seconds;
  if (mines) epoch_seconds_ = (seconds - again) / at::get_num_threads();
}

double Trainer::cost_of(std::int64_t step) {
  const auto tokens = static_cast<double>(tokens_of(order_.batch(step)));
  return step < order_.steps_per_epoch() ? tokens : later_visit_ * tokens;
}

void Trainer::estimate_time() {
  const std::int64_t done = state_.step - resumed_from_;
  if (done == kFirstSteps) probe_seconds_ = state_.seconds;
  if (done != kProbe) return;
  double probe = 0, left = 0;
  for (std::int64_t step = state_.step - (kProbe - kFirstSteps); step < state_.step; ++step) probe += cost_of(step);
  if (probe <= 0) return;
  std::size_t seen = 0;
  std::int64_t step = state_.step;
  for (; step < total_steps_ && seen < kMostRows; ++step) {
    left += cost_of(step);
    seen += order_.batch(step).size();
  }
  if (step < total_steps_)  // the rest as those
    left *= static_cast<double>(total_steps_ - state_.step) / static_cast<double>(step - state_.step);
  const std::int64_t epochs_to_come =
      (total_steps_ - 1) / order_.steps_per_epoch() - (state_.step - 1) / order_.steps_per_epoch();
  estimates_.training_seconds = state_.seconds + (state_.seconds - probe_seconds_) / probe * left +
                                epoch_seconds_ * static_cast<double>(epochs_to_come);
  events_({{"event", "estimate"}, {"step", state_.step}, {"training_seconds", estimates_.training_seconds}});
}

std::int64_t Trainer::tokens_of(RowSpan rows) const {
  std::int64_t tokens = 0;
  for (const std::int64_t r : rows) tokens += static_cast<std::int64_t>(file_.row(static_cast<std::size_t>(r)).size());
  return tokens;
}

}  // namespace tailor::tune
