#pragma once
/// Which real tokens the virtual ones of a soft prompt begin as.

#include <cstdint>
#include <vector>

#include "core/token_file.h"
#include "tune/settings.h"

namespace tailor::tune {

/// As many ids as settings.tokens:
///   settings.start, where it names some, and again from its beginning until there are enough;
///   init labels: the tokens of the labels' answers without their ends (Lester et al. find them the best start), then
///     those of the rows;
///   init vocabulary or random: drawn without repeats from the first 5,000 ids (ids of byte-pair and SentencePiece
///     vocabularies rise as tokens become rarer), a function of `seed` alone. Random ones give the size of the values.
/// Throws Exception{kInvalidArgument} where settings.start names an id that is not below `vocabulary`.
std::vector<std::int32_t> soft_prompt_words(const SoftPromptSettings& settings, const TokenFile& file,
                                            std::int64_t vocabulary, std::uint64_t seed);

}  // namespace tailor::tune
