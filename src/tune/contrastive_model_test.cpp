// Which rows are compared: companions of a batch, and labels' names among them.

#include <gtest/gtest.h>

#include <chrono>

#include "core/files.h"
#include "core/json.h"
#include "tune/encoder_test_model.h"
#include "tune/run_job.h"

namespace tailor::tune {
namespace {

constexpr std::int64_t kTextTokens = 3, kNameTokens = 7;

/// Three texts a label and then its name; every text has kTextTokens tokens, every name kNameTokens. The names' ids are
/// below 0, or follow those of the texts.
TokenFile named_rows(bool marked) {
  TokenFile file;
  file.n_labels = 4;
  file.vocab_size = 100;
  Rng rng(9);
  const auto add = [&](std::int32_t label, std::int64_t length, std::int64_t row_id) {
    std::vector<std::int32_t> ids;
    for (std::int64_t k = 0; k < length; ++k) ids.push_back(static_cast<std::int32_t>(1 + rng.below(79)));
    file.add_row(ids, label, TokenPart::kTrain, row_id);
  };
  for (std::int32_t label = 0; label < file.n_labels; ++label) {
    for (int i = 0; i < 3; ++i) add(label, kTextTokens, 10 * label + i);
    add(label, kNameTokens, marked ? -1 - label : 10 * label + 3);
  }
  return file;
}

/// Tokens that each step computed, of batches with one row and no hard negatives.
std::vector<std::int64_t> tokens_of_steps(bool marked) {
  const TemporaryDirectory dir;
  Job job = testing::tiny_job(dir.path(), named_rows(marked), "contrastive");
  job.settings.batch_size = 1;
  job.settings.max_steps = 16;
  job.settings.hard_negatives = 0;
  std::vector<std::int64_t> out;
  std::int64_t before = 0;
  const auto sink = [&](const Json& event) {
    if (event.at("event") != "step") return;
    const auto total = event.at("tokens").get<std::int64_t>();
    out.push_back(total - before);
    before = total;
  };
  const CancelToken never;
  const auto result = run_job(job, sink, never, std::chrono::steady_clock::now());
  EXPECT_TRUE(result) << result.error().message;
  return out;
}

TEST(ContrastiveModel, ANameComesWithEveryRowOfItsLabel) {
  // A text or the name, drawn with itself, with another text or with the name; the name always.
  for (const std::int64_t tokens : tokens_of_steps(/*marked=*/true)) {
    EXPECT_TRUE(tokens == kNameTokens || tokens == kNameTokens + kTextTokens || tokens == kNameTokens + 2 * kTextTokens)
        << tokens;
  }
  bool without_name = false;
  for (const std::int64_t tokens : tokens_of_steps(/*marked=*/false))
    without_name = without_name || tokens <= 2 * kTextTokens;
  EXPECT_TRUE(without_name);
}

}  // namespace
}  // namespace tailor::tune
