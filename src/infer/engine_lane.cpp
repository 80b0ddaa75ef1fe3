#include <fmt/format.h>

#include <algorithm>
#include <exception>

#include "infer/engine_impl.h"
#include "infer/ggml_device.h"

namespace tailor {
namespace {

constexpr std::size_t kBatch = 512;
constexpr int kFewTokens = 8;  // in a step: what is between the products is computed by one thread
/// Of the logits that a step computes to tell log p of prompts.
constexpr std::size_t kLogprobBytes = std::size_t{64} << 20;

double seconds(SteadyTime from, SteadyTime to) {
  return std::chrono::duration<double>(to - from).count();
}
SteadyTime now() {
  return std::chrono::steady_clock::now();
}

}  // namespace

Lane::Lane(Engine::Impl& engine, bool alone)
    : engine_(engine),
      alone_(alone),
      memory_(engine.model, engine.lane_options(alone)),
      beginnings_(*engine.beginnings, memory_),
      thread_([this] { run(); }) {}

Lane::~Lane() {
  join();
}

void Lane::join() {
  if (thread_.joinable()) thread_.join();
}

void Lane::run() {
  set_own_attention(true);
  ComputeShare::Busy busy(*engine_.share);
  for (;;) {
    std::vector<std::unique_ptr<EngineJob>> expired;
    bool afresh = false;
    {
      std::unique_lock lock(engine_.mutex);
      if (!has_work()) {
        busy.set(false);
        computing_since_.reset();
      }
      wait_for_work(lock);
      if (engine_.stopping) break;
      if (!computing_since_) computing_since_ = now();
      afresh = jobs_.empty() && (times_forgotten_ != engine_.times_forgotten || holds_too_much());
      if (!alone_) memory_.set_max_cells(engine_.lane_cells);
      if (afresh) times_forgotten_ = engine_.times_forgotten;
      expired = admit();
      engine_.measure();
      drop_removed_adapter();
      beginnings_.collect();
    }
    Engine::Impl::tell_expired(expired);
    busy.set(true);
    try {
      if (afresh) begin_afresh();
      beginnings_.take_deliveries([this](EngineJob& job, const Error& error) { fail(job, error); });
      begin_new();
      step();
      beginnings_.serve_orders();
      if (alone_ && jobs_.empty()) begin_afresh();  // the next one has a context of its own in any case
    } catch (const std::exception& e) {             // out of memory; whatever it was, nobody waits for ever
      fail_all({ErrorCode::kInternal, fmt::format("the engine failed: {}", e.what()), ""});
      beginnings_.give_up();
      begin_afresh();
    }
    publish();
  }
  fail_all({ErrorCode::kCancelled, "the engine was stopped before the end of the answer", ""});
}

bool Lane::holds_too_much() const {
  return !alone_ && memory_.cells() > engine_.lane_cells;
}

bool Lane::keep_promise(const EngineJob& job) {
  if (alone_ || memory_.max_cells() >= job.promised_cells) return false;
  memory_.set_max_cells(job.promised_cells);
  return true;
}

bool Lane::adapter_removed() const {
  const auto adapter = engine_.adapters.find(adapter_);
  return jobs_.empty() && adapter != engine_.adapters.end() && adapter->second.removed;
}

void Lane::drop_removed_adapter() {
  if (!adapter_removed()) return;
  memory_.set_adapter(nullptr);
  engine_.forget_if_unused(engine_.adapters.at(std::exchange(adapter_, 0)));
}

void Lane::wait_for_work(std::unique_lock<std::mutex>& lock) const {
  std::optional<SteadyTime> first_deadline;
  for (const auto& job : jobs_) {
    const auto& deadline = job->request->deadline;
    if (deadline && (!first_deadline || *deadline < *first_deadline)) first_deadline = deadline;
  }
  while (!engine_.stopping && !has_work()) {
    if (first_deadline)
      engine_.changed.wait_until(lock, *first_deadline);
    else
      engine_.changed.wait(lock);
  }
}

bool Lane::has_work() const {
  if (beginnings_.has_mail() || adapter_removed() || (jobs_.empty() && holds_too_much())) return true;
  const auto runnable = [&, at = now()](const auto& job) {
    return !job->begun_here || beginnings_.may_go_on(*job) || expiry(*job, at).has_value();
  };
  if (std::any_of(jobs_.begin(), jobs_.end(), runnable)) return true;
  return engine_.queue.oldest([&](const QueuedRequest& r) { return may_admit(r); }) != nullptr;
}

bool Lane::has_room_for_all_of(const QueuedRequest& request) const {
  if (jobs_.empty()) return true;
  std::size_t needed = request.tokens + jobs_.front()->adapter->soft_tokens;
  for (const auto& job : jobs_)
    needed += job->adapter->soft_tokens + job->prompt_size() + static_cast<std::size_t>(job->max_tokens);
  return needed <= memory_.max_cells();
}

bool Lane::may_admit(const QueuedRequest& request) const {
  if (engine_.held > 0 || alone_ != (request.group < 0)) return false;
  if (alone_) return jobs_.empty();
  if (static_cast<int>(jobs_.size()) >= engine_.options.lane_sequences) return false;
  if (!jobs_.empty() && (request.group != adapter_ || holds_too_much())) return false;
  if (engine_.options.whole_answers && !has_room_for_all_of(request)) return false;
  // No more than leaves all lanes alike once what waits is spread over them: one that is computing takes its part
  // later.
  std::size_t spread = engine_.queue.size(), lanes = 0;
  for (const auto& lane : engine_.lanes) {
    if (lane->alone() || (lane.get() != this && lane->adapter() != request.group && lane->load() > 0)) continue;
    spread += lane->load();
    ++lanes;
  }
  return load_ * lanes < spread && !must_drain();
}

/// An adapter that no lane has waits for one to become free; the lane with the fewest answers makes room.
bool Lane::must_drain() const {
  const auto homeless = [&](const QueuedRequest& r) {
    return r.group >= 0 && std::none_of(engine_.lanes.begin(), engine_.lanes.end(), [&](const auto& lane) {
             return !lane->alone() && (lane->adapter() == r.group || lane->load() == 0);
           });
  };
  const QueuedRequest* oldest = engine_.queue.oldest(homeless);
  if (oldest == nullptr || now() - oldest->since < engine_.options.adapter_wait) return false;
  for (const auto& lane : engine_.lanes) {
    if (lane.get() != this && !lane->alone() && lane->load() < load_) return false;
  }
  return true;
}

std::vector<std::unique_ptr<EngineJob>> Lane::admit() {
  const SteadyTime at = now();
  std::vector<std::unique_ptr<EngineJob>> expired = engine_.take_expired(at);
  while (const auto taken = engine_.queue.take([&](const QueuedRequest& r) { return may_admit(r); }, at)) {
    const auto waiting = engine_.waiting.find(taken->id);
    adapter_ = waiting->second->adapter->id;
    jobs_.push_back(std::move(waiting->second));
    engine_.waiting.erase(waiting);
    load_ = jobs_.size();
  }
  engine_.open_lanes();
  return expired;
}

void Lane::begin_new() {
  for (std::size_t i = 0; i < jobs_.size(); ++i) {
    EngineJob& job = *jobs_[i];
    if (job.begun_here) continue;
    if (const Status status = begin(job); !status.has_value()) {
      fail(job, status.error());
      --i;
    }
  }
}

Status Lane::begin(EngineJob& job) {
  if (engine_.by_worker()) {
    if (!engine_.torch) {
      TAILOR_TRY(engine_.torch,
                 TorchWorker::start(engine_.model->file(), engine_.options.worker, engine_.share->cores()));
    }
  } else if (alone_) {
    const std::size_t most = job.prompt_size() + static_cast<std::size_t>(job.max_tokens) + job.adapter->soft_tokens;
    TAILOR_CHECK(memory_.reopen(most));
    const int limit = engine_.model->short_context();
    job.beyond = limit > 0 && memory_.max_cells() > static_cast<std::size_t>(limit);
  } else {
    TAILOR_CHECK(memory_.open());
  }
  memory_.set_adapter(job.adapter->lora);
  job.begun_here = true;
  if (!job.sampler && !job.request->only_prompt) {
    std::unique_ptr<TokenConstraint> constraint;
    if (job.request->constraint) {
      TAILOR_TRY(constraint, job.request->constraint());
    }
    job.sampler.emplace(job.request->sampling, job.request->prompt, engine_.ends, job.choice, std::move(constraint));
  }
  if (job.begun == SteadyTime{}) {
    job.begun = now();
    new_prompt_ += job.prompt_size();
  }
  return beginnings_.begin(job);
}

void Lane::end_expired() {
  const SteadyTime at = now();
  for (std::size_t i = 0; i < jobs_.size(); ++i) {
    if (const auto error = expiry(*jobs_[i], at)) {
      fail(*jobs_[i], *error);
      --i;
    }
  }
}

std::vector<Lane::Piece> Lane::plan() {
  std::vector<Piece> pieces;
  std::size_t total = 0;
  for (const auto& job : jobs_) {
    if (job->waits() || job->tokens.size() - job->computed != 1) continue;
    pieces.push_back({job.get(), 1});
    ++total;
  }
  std::size_t left = total > 0 ? static_cast<std::size_t>(engine_.options.chunk_tokens) : kBatch;
  left = std::min(left, kBatch - total);
  std::size_t scored_left =
      std::max<std::size_t>(16, kLogprobBytes / sizeof(float) / static_cast<std::size_t>(engine_.model->vocabulary()));
  for (const auto& job : jobs_) {
    const std::size_t remaining = job->tokens.size() - job->computed;
    if (job->waits() || remaining <= 1 || left == 0) continue;
    std::size_t count = std::min(remaining, left);
    if (job->request->prompt_logprobs >= 0) {
      const std::size_t first = job->first_scored() - 1;  // whose logits are needed
      const std::size_t before = first > job->computed ? first - job->computed : 0;
      count = std::min(count, before + scored_left);
      scored_left -= count - std::min(count, before);
    }
    if (count == 0) continue;
    pieces.push_back({job.get(), count});
    left -= count;
  }
  return pieces;
}

void Lane::look_again() {
  for (std::size_t i = 0; i < jobs_.size(); ++i) {
    if (const Status status = beginnings_.look_again(*jobs_[i]); !status.has_value()) {
      fail(*jobs_[i], status.error());
      --i;
    }
  }
}

void Lane::step() {
  end_expired();
  look_again();
  for (;;) {
    std::vector<Piece> pieces = plan();
    if (pieces.empty()) return;
    std::size_t total = 0;
    for (const Piece& piece : pieces) total += piece.count;
    const Result<bool> room = engine_.by_worker() ? Result<bool>(true) : beginnings_.make_room(total);
    if (room.has_value() && *room) {
      if (const Status status = compute(pieces); !status.has_value()) {
        for (const Piece& piece : pieces) fail(*piece.job, status.error());
      }
      return;
    }
    if (room.has_value() && jobs_.size() == 1 && keep_promise(*jobs_.back())) continue;
    if (!room.has_value() || jobs_.size() == 1) {
      fail(*jobs_.back(), room.has_value()
                              ? Error{ErrorCode::kOutOfMemory,
                                      fmt::format("the key-value cache of {} tokens is full", memory_.max_cells()),
                                      "give the cache more memory, or ask for fewer tokens"}
                              : room.error());
      return;
    }
    give_back(*jobs_.back());
  }
}

void Lane::begin_afresh() {
  beginnings_.forget_all();
  memory_.close();
}

/// log p of the prompt in one call, which a worker computes many times faster than token after token.
Status Lane::score_by_worker(EngineJob& job) {
  const TokenList& prompt = job.request->prompt;
  const std::size_t first = job.first_scored();
  if (first >= prompt.size()) return {};
  std::vector<std::uint8_t> mask(prompt.size(), 0);
  std::fill(mask.begin() + static_cast<std::ptrdiff_t>(first), mask.end(), std::uint8_t{1});
  TAILOR_TRY(const std::vector<double> losses, engine_.torch->losses(prompt, mask, CancelToken()));
  for (std::size_t i = 0; i < losses.size() && first + i < prompt.size(); ++i)
    job.prompt_logprobs.push_back({prompt[first + i], static_cast<float>(-losses[i]), {}});
  return {};
}

/// What a worker is not asked for it does not compute: a prompt is one step, but where its log p are wanted.
Status Lane::compute_by_worker(Piece& piece) {
  EngineJob& job = *piece.job;
  worker_logits_.assign(piece.count, {});
  const ComputeShare::Turn turn(*engine_.share);
  const auto failed = [&](const Error& error) {
    engine_.torch.reset();  // the next answer starts it again
    return Error{ErrorCode::kInternal, error.message, error.hint};
  };
  const bool at_once = job.request->only_prompt && job.request->prompt_logprobs == 0;
  if (at_once && job.computed + piece.count == job.prompt_size()) {
    if (const Status scored = score_by_worker(job); !scored.has_value()) return failed(scored.error());
  }
  for (std::size_t i = 0; i < piece.count && !at_once; ++i) {
    const std::size_t end = job.computed + i + 1;
    const bool last = end == job.tokens.size() && !job.request->only_prompt;
    if (!last && !job.scored(end - 1)) continue;
    auto logits = engine_.torch->logits(std::span(job.tokens).first(end), CancelToken());
    if (!logits.has_value()) return failed(logits.error());
    worker_logits_[i] = std::move(*logits);
  }
  read(piece);
  return {};
}

Status Lane::compute(std::vector<Piece>& pieces) {
  if (engine_.by_worker()) return compute_by_worker(pieces.front());
  DecodeBatch batch;
  for (Piece& piece : pieces) {
    const EngineJob& job = *piece.job;
    const std::int32_t sequence = job.sequence.id;
    const auto position = static_cast<int>(job.sequence.cells.size());
    for (std::size_t i = 0; i < piece.count; ++i) {
      const std::size_t at = job.computed + i;
      const bool last = at + 1 == job.tokens.size() && !job.request->only_prompt;
      const int index =
          batch.add(job.tokens[at], position + static_cast<int>(i), {sequence, sequence + 1}, last || job.scored(at));
      if (i == 0) piece.first_index = index;
    }
  }
  const ComputeShare::Turn turn(*engine_.share);
  const int threads = pieces[0].job->request->invariant ? 1 : turn.threads();
  const bool few = engine_.model->own_products() && batch.size() <= kFewTokens;
  memory_.set_threads(few ? 1 : threads);
  set_kernel_threads(threads);
  TAILOR_CHECK(memory_.decode(batch));
  for (const Piece& piece : pieces) memory_.extend(piece.job->sequence, piece.count);
  for (const Piece& piece : pieces) read(piece);
  return {};
}

void Lane::read(const Piece& piece) {
  EngineJob& job = *piece.job;
  const EngineRequest& request = *job.request;
  const auto vocabulary = static_cast<std::size_t>(engine_.model->vocabulary());
  const auto logits = [&](std::size_t i) {
    if (engine_.by_worker()) return std::span<float>(worker_logits_[i]);
    return std::span<float>(llama_get_logits_ith(memory_.context(), piece.first_index + static_cast<int>(i)),
                            vocabulary);
  };
  const std::size_t before = job.computed;
  job.computed += piece.count;
  new_computed_ += piece.count;
  for (std::size_t i = 0; i < piece.count; ++i) {
    if (!job.scored(before + i)) continue;
    if (const std::span<float> row = logits(i); !row.empty())  // empty: a worker has told all at once
      job.prompt_logprobs.push_back(read_logprobs(row, job.tokens[before + i + 1], request.prompt_logprobs));
  }
  if (job.computed < job.tokens.size()) return;
  if (!job.told_prompt) {
    job.told_prompt = true;
    new_cached_ += job.cached;
    const SteadyTime at = now();
    job.first_token = at;
    job.listener->on_prompt(job.choice, {job.prompt_size(), job.cached, seconds(job.submitted, job.begun),
                                         seconds(job.begun, at), std::move(job.prompt_logprobs)});
  }
  std::optional<AnswerEnd> end;
  if (request.only_prompt) {
    end.emplace();
  } else if (const Status status = take_token(job, logits(piece.count - 1), end); !status.has_value()) {
    return fail(job, status.error());
  }
  if (!end) return;
  end->tokens = job.answer_size();
  end->seconds = seconds(job.first_token, now());
  const auto listener = job.listener;
  const int choice = job.choice;
  leave(job, true);
  listener->on_end(choice, *end);
}

Status Lane::take_token(EngineJob& job, std::span<float> logits, std::optional<AnswerEnd>& end) {
  const SamplingOptions& sampling = job.request->sampling;
  TAILOR_TRY(const SampledToken token, job.sampler->next(logits));
  job.tokens.push_back(token.token);
  ++new_answer_;
  const auto is = [&](const std::vector<std::int32_t>& ends) {
    return std::find(ends.begin(), ends.end(), token.token) != ends.end();
  };
  if ((is(engine_.ends) && !sampling.ignore_end) || is(sampling.stop_tokens)) {
    end = AnswerEnd{.reason = FinishReason::kStop, .stop_token = token.token};
  } else if (!job.text.add(engine_.model->tokenizer().decode({&token.token, 1}))) {
    end = AnswerEnd{.reason = FinishReason::kStop, .stop_text = job.text.stop()};
  } else if (static_cast<int>(job.answer_size()) >= job.max_tokens) {
    end = AnswerEnd{.reason = FinishReason::kLength};
  }
  if (end && end->stop_text.empty()) job.text.finish();
  job.listener->on_text(job.choice, job.text.take(), {&token, 1});
  return {};
}

std::unique_ptr<EngineJob> Lane::take_out(EngineJob& job) {
  const auto place = std::find_if(jobs_.begin(), jobs_.end(), [&](const auto& j) { return j.get() == &job; });
  std::unique_ptr<EngineJob> out = std::move(*place);
  jobs_.erase(place);
  return out;
}

void Lane::fail(EngineJob& job, const Error& error) {
  const auto listener = job.listener;
  const int choice = job.choice;
  leave(job, false);
  listener->on_error(choice, error);
}

void Lane::fail_all(const Error& error) {
  while (!jobs_.empty()) fail(*jobs_.back(), error);
}

void Lane::leave(EngineJob& job, bool complete) {
  const std::unique_ptr<EngineJob> owned = take_out(job);
  {
    const std::lock_guard lock(engine_.mutex);
    engine_.account(job, job.work);  // what it did not need is done as well
    ++(complete ? engine_.counts.finished : engine_.counts.failed);
    engine_.release(*job.adapter);
    load_ = jobs_.size();
    engine_.changed.notify_all();
  }
  if (complete)
    beginnings_.keep(job);
  else
    beginnings_.drop(job);
}

void Lane::give_back(EngineJob& job) {
  std::unique_ptr<EngineJob> owned = take_out(job);
  beginnings_.drop(job);
  job.begun_here = false;
  job.prompt_logprobs.clear();
  const std::lock_guard lock(engine_.mutex);
  ++engine_.counts.preempted;
  load_ = jobs_.size();
  engine_.queue.push_front({.id = job.id,
                            .client = job.request->client,
                            .priority = job.request->priority,
                            .tokens = std::max<std::uint64_t>(1, job.work - job.worked),
                            .group = job.alone ? -1 - job.adapter->id : job.adapter->id,
                            .since = job.submitted});
  engine_.watch_for(job);
  engine_.waiting[job.id] = std::move(owned);
  engine_.changed.notify_all();
}

void Lane::publish() {
  const std::lock_guard lock(engine_.mutex);
  for (const auto& job : jobs_) {
    engine_.account(*job, job->computed);
    beginnings_.publish(*job);
  }
  EngineStats& counts = engine_.counts;
  if (new_computed_ > 0) {
    const auto* bound = std::lower_bound(kStepTokens.begin(), kStepTokens.end(), static_cast<double>(new_computed_));
    ++counts.computing_steps[static_cast<std::size_t>(bound - kStepTokens.begin())];
  }
  counts.prompt_tokens += std::exchange(new_prompt_, 0);
  counts.cached_tokens += std::exchange(new_cached_, 0);
  counts.computed_tokens += std::exchange(new_computed_, 0);
  counts.answer_tokens += std::exchange(new_answer_, 0);
  ++counts.steps;
  computing_since_ = now();
  shown_used_ = memory_.used();
  shown_held_ = memory_.cells();
}

}  // namespace tailor
