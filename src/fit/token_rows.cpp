#include "fit/token_rows.h"

#include <algorithm>
#include <vector>

#include "infer/parallel.h"

namespace tailor {
namespace {

constexpr std::size_t kBlockRows = 4096;  // of one thread; a few hundred kilobytes of short rows

}  // namespace

Status make_token_rows(std::size_t rows, int threads, const TokenFile& empty, const MakeTokenRow& make,
                       const TakeTokenBlock& take) {
  const std::size_t blocks = std::max<std::size_t>(1, (rows + kBlockRows - 1) / kBlockRows);
  const std::size_t workers = std::min<std::size_t>(static_cast<std::size_t>(std::max(threads, 1)), blocks);
  std::vector<TokenFile> made(workers, empty);
  for (std::size_t first = 0; first < blocks; first += workers) {
    const std::size_t n = std::min(workers, blocks - first);
    const auto work = [&](int worker) -> Status {
      const auto w = static_cast<std::size_t>(worker);
      const std::size_t begin = (first + w) * kBlockRows, end = std::min(rows, begin + kBlockRows);
      clear_rows(made[w]);
      for (std::size_t row = begin; row < end; ++row) TAILOR_CHECK(make(row, made[w]));
      return {};
    };
    TAILOR_CHECK(run_workers(static_cast<int>(n), work));
    for (std::size_t w = 0; w < n; ++w) TAILOR_CHECK(take(made[w]));
  }
  return {};
}

}  // namespace tailor
