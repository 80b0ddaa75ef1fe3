#include "infer/engine_impl.h"

namespace tailor {

std::optional<Error> expiry(const EngineJob& job, SteadyTime at) {
  if (job.ticket->cancelled()) return Error{ErrorCode::kCancelled, "the request was cancelled", ""};
  if (job.request->deadline && at >= *job.request->deadline)
    return Error{ErrorCode::kCancelled, "the request took longer than its time-out",
                 "ask for fewer tokens, or allow more time"};
  return std::nullopt;
}

void Engine::Impl::watch_waiting() {
  while (alarm->wait()) {
    std::vector<std::unique_ptr<EngineJob>> expired;
    {
      const std::lock_guard lock(mutex);
      expired = take_expired(std::chrono::steady_clock::now());
      if (!expired.empty()) measure();
      watch_for_the_next();
      changed.notify_all();  // a lane may sleep beside an answer that was cancelled
    }
    tell_expired(expired);
  }
}

void Engine::Impl::watch_for_the_next() const {
  std::optional<SteadyTime> next;
  for (const auto& [id, job] : waiting) {
    const auto& deadline = job->request->deadline;
    if (deadline && (!next || *deadline < *next)) next = deadline;
  }
  if (next) alarm->ring_by(*next);
}

std::vector<std::unique_ptr<EngineJob>> Engine::Impl::take_expired(SteadyTime at) {
  std::vector<std::unique_ptr<EngineJob>> expired;
  for (auto job = waiting.begin(); job != waiting.end();) {
    if (!expiry(*job->second, at)) {
      ++job;
      continue;
    }
    queue.remove(job->first);
    release(*job->second->adapter);
    ++counts.failed;
    expired.push_back(std::move(job->second));
    job = waiting.erase(job);
  }
  return expired;
}

void Engine::Impl::tell_expired(std::span<const std::unique_ptr<EngineJob>> expired) {
  for (const auto& job : expired) job->listener->on_error(job->choice, *expiry(*job, SteadyTime::max()));
}

}  // namespace tailor
