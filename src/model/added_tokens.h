#pragma once
/// Tokens that are added to a decoder's vocabulary, so that a text that is written again and again (a mark of a tool, a
/// part's name) is one token.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"

namespace tailor {

/// Writes `base` (GGUF) to `out` (atomic) with `tokens` in its vocabulary, and returns their ids in that order. They
/// are ordinary words of one token: found in every text, people's too, wherever they stand, and longest first. A new
/// row of the table of words, and of an output layer of its own, begins at the mean of the rows of the tokens before it
/// (as transformers' resize_token_embeddings, but without its noise of 1e-9 times the covariance). Rows that only fill
/// the table up are used first, the table grows by the rest; a quantised one whose type cannot be written becomes f16.
/// Files of the Hugging Face directory that the model came from are kept with the tokens added. A token that was added
/// before keeps its id and its row. Errors: no decoder, a text that is empty, given twice, holds blanks or control
/// characters, or is already a token of another kind.
Result<std::vector<std::int32_t>> add_tokens(const std::filesystem::path& base, const std::vector<std::string>& tokens,
                                             const std::filesystem::path& out);

}  // namespace tailor
