#pragma once
/// Texts to rows of tokens on several threads, a block at a time: memory does not grow with the rows.

#include <cstddef>
#include <functional>

#include "core/result.h"
#include "core/token_file_writer.h"

namespace tailor {

/// Appends the tokens of row `row` to `block`, with what belongs to them. Called from several threads, for different
/// rows and blocks.
using MakeTokenRow = std::function<Status(std::size_t row, TokenFile& block)>;
/// Is handed the blocks in the order of their rows, and may change them.
using TakeTokenBlock = std::function<Status(TokenFile& block)>;

/// Makes rows 0 to `rows` - 1 and hands them on; one empty block where there are none. `empty` has what is common to
/// all blocks. The first error in the order of the rows ends it.
Status make_token_rows(std::size_t rows, int threads, const TokenFile& empty, const MakeTokenRow& make,
                       const TakeTokenBlock& take);

}  // namespace tailor
