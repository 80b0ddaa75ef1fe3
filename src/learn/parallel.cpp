#include "learn/parallel.h"

#include <cblas.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace tailor {

void for_pieces(int threads, std::size_t pieces, const std::function<void(std::size_t)>& work) {
  static std::once_flag once;
  std::call_once(once, [] { openblas_set_num_threads(1); });
  const std::size_t workers = std::min(pieces, static_cast<std::size_t>(std::max(threads, 1)));
  if (workers < 2) {
    for (std::size_t p = 0; p < pieces; ++p) work(p);
    return;
  }
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_lock;
  const auto loop = [&] {
    try {
      for (std::size_t p = next++; p < pieces; p = next++) work(p);
    } catch (...) {
      const std::lock_guard lock(failure_lock);
      if (!failure) failure = std::current_exception();
      next = pieces;
    }
  };
  std::vector<std::jthread> pool;
  for (std::size_t i = 1; i < workers; ++i) pool.emplace_back(loop);
  loop();
  pool.clear();  // joins
  if (failure) std::rethrow_exception(failure);
}

}  // namespace tailor
