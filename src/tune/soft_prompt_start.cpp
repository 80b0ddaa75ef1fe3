#include "tune/soft_prompt_start.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/result.h"
#include "core/rng.h"

namespace tailor::tune {
namespace {

constexpr std::uint64_t kWordsStream = 9001;  // numbers never change, or old runs could not be repeated
constexpr std::int64_t kCommonTokens = 5000;  // as in the paper

std::vector<std::int32_t> drawn(std::size_t n, std::int64_t vocabulary, std::uint64_t seed) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(std::min(vocabulary, kCommonTokens)));
  std::iota(ids.begin(), ids.end(), 0);
  Rng rng(seed, kWordsStream);
  rng.shuffle(ids);
  ids.resize(std::min(n, ids.size()));
  return ids;
}

}  // namespace

std::vector<std::int32_t> soft_prompt_words(const SoftPromptSettings& settings, const TokenFile& file,
                                            std::int64_t vocabulary, std::uint64_t seed) {
  const auto n = static_cast<std::size_t>(settings.tokens);
  std::vector<std::int32_t> words = settings.start;
  for (const std::int32_t word : words) {
    if (word < vocabulary) continue;
    throw Exception({ErrorCode::kInvalidArgument,
                     fmt::format("settings.soft_prompt.start: {} is no token of the model", word),
                     fmt::format("ids are below {}", vocabulary)});
  }
  if (words.empty() && settings.init != SoftPromptInit::kLabels) words = drawn(n, vocabulary, seed);
  if (words.empty()) {
    for (std::size_t l = 0; words.size() < n && l < static_cast<std::size_t>(file.n_labels); ++l) {
      const auto answer = file.label(l);
      words.insert(words.end(), answer.begin(), answer.end() - (answer.size() > 1 ? 1 : 0));
    }
    for (std::size_t r = 0; words.size() < n && r < file.rows(); ++r)
      words.insert(words.end(), file.row(r).begin(), file.row(r).end());
  }
  const std::size_t given = words.size();
  for (std::size_t i = 0; words.size() < n; ++i) words.push_back(words[i % given]);
  words.resize(n);
  return words;
}

}  // namespace tailor::tune
