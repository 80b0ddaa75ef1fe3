#pragma once
/// Data parallelism over a few long-lived workers. One single-threaded llama.cpp context a worker beats one context on
/// all cores: there is no barrier after every graph node.

#include <exception>
#include <thread>
#include <vector>

#include "core/result.h"

namespace tailor {

/// Calls `work(worker)` for worker = 0 … n-1, each on its own thread (0 on the calling one), and waits for all. Returns
/// the error of the lowest worker that failed; an exception is rethrown after all have ended. `work` returns Status.
template <typename Work>
Status run_workers(int n, Work&& work) {
  if (n <= 1) return work(0);
  std::vector<Status> status(static_cast<std::size_t>(n));
  std::vector<std::exception_ptr> thrown(static_cast<std::size_t>(n));
  const auto guarded = [&](int worker) {
    const auto i = static_cast<std::size_t>(worker);
    try {
      status[i] = work(worker);
    } catch (...) {
      thrown[i] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int worker = 1; worker < n; ++worker) threads.emplace_back(guarded, worker);
    guarded(0);
  }
  for (const std::exception_ptr& e : thrown) {
    if (e) std::rethrow_exception(e);
  }
  for (Status& s : status) {
    if (!s.has_value()) return s;
  }
  return {};
}

}  // namespace tailor
