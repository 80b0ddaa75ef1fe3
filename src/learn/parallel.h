#pragma once
/// Work over a fixed number of pieces on a few threads. Pieces do not depend on the thread count, so sums over them,
/// taken in order, give the same bits on one thread as on many.

#include <cstddef>
#include <functional>

namespace tailor {

/// Calls work(piece) for every piece in [0, pieces); returns when all are done. The first exception is rethrown.
/// threads < 2 runs in the caller. OpenBLAS is held to one thread (process-wide, once): its own pool would spin while
/// idle.
void for_pieces(int threads, std::size_t pieces, const std::function<void(std::size_t)>& work);

}  // namespace tailor
