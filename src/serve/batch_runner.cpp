#include "serve/batch_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "core/files.h"
#include "serve/batch_results.h"
#include "store/random_id.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

constexpr int kLowest = -1'000'000;  // waiting raises it by one in ten seconds: live requests stay before it
constexpr const char* kPrefix = "batch_";

/// Whether it goes by: a full disk, another process at the store.
bool may_pass(const Error& error) {
  return error.code == ErrorCode::kIo || error.code == ErrorCode::kUnavailable;
}

bool wants_stream(const Json& body) {
  const auto found = body.find("stream");
  return found != body.end() && found->is_boolean() && found->get<bool>();
}

struct Figures {
  std::uint64_t active = 0, stalled = 0, running = 0, completed = 0, failed = 0;
};

void write_figures(MetricText& out, const Figures& figures) {
  out.gauge("tailor_batches_active", "Batches that are worked on.");
  out.sample({}, figures.active);
  out.gauge("tailor_batches_stalled", "Batches that wait for room on the disk.");
  out.sample({}, figures.stalled);
  out.gauge("tailor_batch_requests_running", "Requests of batches that were asked and have no answer yet.");
  out.sample({}, figures.running);
  out.counter("tailor_batch_requests_total", "Requests of batches by what became of them.");
  out.sample({{"outcome", "completed"}}, figures.completed);
  out.sample({{"outcome", "failed"}}, figures.failed);
}

}  // namespace

BatchRunner::BatchRunner(const ApiServices& services, Authenticator& door,
                         std::shared_ptr<const RequestObservers> observers, BatchOptions options)
    : services_(services),
      door_(door),
      observers_(std::move(observers)),
      options_(std::move(options)),
      store_(*services.store),
      log_(*services.log) {
  if (!options_.clock) options_.clock = unix_seconds;
  options_.input.line_bytes = std::min<std::size_t>(options_.input.line_bytes, services.limits.body_bytes);
  services_.openapi.clear();
  // Behind live requests one may wait long: its batch's end is what ends it.
  services_.limits.request_timeout = std::chrono::hours(24 * 8);
  thread_ = std::thread([this] { run(); });
}

BatchRunner::~BatchRunner() {
  stopping_ = true;
  wake();
  thread_.join();
}

void BatchRunner::wake() {
  const std::lock_guard lock(inbox_->mutex);
  inbox_->woken = true;
  inbox_->changed.notify_all();
}

Result<Batch> BatchRunner::cancel(const std::string& id) {
  TAILOR_TRY(const Batch now, store_.batches().find(id));
  if (now.status == BatchStatus::kCancelling) return now;
  TAILOR_TRY(Batch batch, store_.batches().move(id, BatchStatus::kCancelling));
  wake();
  return batch;
}

void BatchRunner::drain() {
  draining_ = true;
  wake();
}

bool BatchRunner::wait_idle(std::chrono::milliseconds timeout) {
  std::unique_lock lock(inbox_->mutex);
  return inbox_->changed.wait_for(lock, timeout, [&] { return under_way_ == 0; });
}

void BatchRunner::write_metrics(MetricText& out) const {
  write_figures(out, {.active = working_on_.load(),
                      .stalled = stalled_.load(),
                      .running = under_way_.load(),
                      .completed = completed_.load(),
                      .failed = failed_.load()});
}

void BatchRunner::write_zeros(MetricText& out) {
  write_figures(out, {});
}

void BatchRunner::run() {
  const auto guarded = [&](auto&& work) {
    try {
      work();
    } catch (const std::exception& e) {
      log_.warning(fmt::format("batches: {}", e.what()));
    }
  };
  guarded([&] { remove_left(); });
  for (;;) {
    std::vector<Reply> replies;
    bool woken = false;
    {
      std::unique_lock lock(inbox_->mutex);
      inbox_->changed.wait_until(lock, next_look(),
                                 [&] { return stopping_ || inbox_->woken || !inbox_->replies.empty(); });
      replies = std::exchange(inbox_->replies, {});
      woken = std::exchange(inbox_->woken, false);
    }
    guarded([&] { hear(std::move(replies)); });
    if (stopping_) break;
    guarded([&] {
      if (woken || std::chrono::steady_clock::now() >= looked_ + options_.look_every) {
        take_batches();
        look();
      }
      read_again();
      for (const auto& batch : active_) save(*batch);
      end_where_done();
      while (submit_next()) {
      }
    });
    const std::lock_guard lock(inbox_->mutex);
    inbox_->changed.notify_all();  // wait_idle()
  }
  for (const auto& batch : active_) {
    for (const auto& [line, asked] : batch->asked) asked.call->cancel();
  }
}

SteadyTime BatchRunner::next_look() const {
  const SteadyTime now = std::chrono::steady_clock::now();
  const bool idle = active_.empty() && !untaken_ && !unrecovered_;
  SteadyTime next = now + (idle ? std::chrono::milliseconds(60'000) : options_.look_every);
  for (const auto& batch : active_) {
    for (const SteadyTime at : {batch->not_before, batch->stalled_until}) {
      if (at > now) next = std::min(next, at);
    }
  }
  return next;
}

/// Batches of dead servers may be taken again.
void BatchRunner::recover() {
  const auto again = store_.batches().recover();
  if (!again.has_value()) {
    if (!std::exchange(unrecovered_, true)) log_.warning("batches: " + to_string(again.error()));
    return;
  }
  unrecovered_ = false;
  for (const std::string& id : *again) log_.info(fmt::format("{}: goes on where it was interrupted", id));
}

/// What batches that have ended left on the disk.
void BatchRunner::remove_left() {
  std::error_code ignored;
  std::vector<fs::path> left;
  for (fs::directory_iterator at(store_.directory().root() / "runs", ignored), end; !ignored && at != end;
       at.increment(ignored)) {
    if (at->path().filename().string().starts_with(kPrefix)) left.push_back(at->path());
  }
  for (const fs::path& directory : left) {
    const auto batch = store_.batches().find(directory.filename().string());
    const bool over = batch.has_value() ? is_final(batch->status) : batch.error().code == ErrorCode::kNotFound;
    if (over) fs::remove_all(directory, ignored);
  }
}

void BatchRunner::take_batches() {
  if (options_.seat != nullptr && !options_.seat->holds("batches")) {
    untaken_ = true;  // asked again soon
    return;
  }
  if (!draining_) recover();
  while (!draining_) {
    const auto taken = take();
    if (!taken.has_value()) {
      if (!std::exchange(untaken_, true)) log_.warning("batches: " + to_string(taken.error()));
      return;
    }
    untaken_ = false;
    if (!*taken) return;
    begin(**taken);
  }
}

/// What is only to be ended goes before those that wait, and beside those that are worked on.
Result<std::optional<Batch>> BatchRunner::take() {
  if (active_.size() >= 2 * options_.batches) return std::optional<Batch>();
  TAILOR_TRY(auto ending, store_.batches().take_ending(options_.clock()));
  if (ending) return ending;
  return store_.batches().take_next(active_.size() >= options_.batches);
}

void BatchRunner::begin(const Batch& taken) {
  auto batch = BatchWork::open(taken, store_, models_for(taken), options_.input, log_);
  const bool expired = options_.clock() >= taken.expires_at;
  if (batch->elsewhere && !expired && left_to_others(*batch)) return;
  if (batch->unread) stall(*batch, *batch->unread);
  if (expired) end(*batch, BatchStatus::kExpired);
  active_.push_back(std::move(batch));
  working_on_ = active_.size();
}

bool BatchRunner::left_to_others(const BatchWork& batch) {
  const auto given = store_.batches().give_back(batch.batch.id);
  if (!given.has_value()) log_.warning(fmt::format("{}: {}", batch.batch.id, to_string(given.error())));
  if (!given.has_value() || !*given) return false;
  log_.info(fmt::format("{}: none of its models is served here; it is left to other servers", batch.batch.id));
  return true;
}

/// Those that its requests will be answered by, as its key sees them.
HasModel BatchRunner::models_for(const Batch& batch) const {
  ModelViewer viewer{batch.owner, batch.owner.empty()};
  if (const auto keys = store_.keys().snapshot()) {
    const auto key = keys->by_id(batch.owner, options_.clock());
    viewer.sees_all = viewer.sees_all || (key && key->scopes.has(Scope::kAdmin));
  }
  return [models = services_.models, viewer](const std::string& name) { return models->find(name, viewer) != nullptr; };
}

void BatchRunner::read_again() {
  for (const auto& batch : active_) {
    if (!batch->unread || batch->stalled_until > std::chrono::steady_clock::now()) continue;
    batch->read_again(store_, models_for(batch->batch), options_.input, log_);
    if (batch->unread)
      stall(*batch, *batch->unread);
    else
      go_on(*batch);
  }
}

/// Whether it may be asked for.
bool BatchRunner::start(BatchWork& batch) {
  if (!batch.start) return true;
  const auto moved = store_.batches().move(batch.batch.id, BatchStatus::kInProgress, *batch.start);
  if (moved.has_value()) {
    batch.batch = *moved;
    batch.start.reset();
    go_on(batch);
    return true;
  }
  if (moved.error().code == ErrorCode::kInvalidArgument)
    end(batch, BatchStatus::kCancelled);  // meanwhile
  else
    stall(batch, moved.error());
  return false;
}

void BatchRunner::stall(BatchWork& batch, const Error& error) {
  batch.stalled_until = std::chrono::steady_clock::now() + options_.retry_after;
  if (std::exchange(batch.waits_for_disk, true)) return;
  ++stalled_;
  log_.warning(fmt::format("{} waits: {}", batch.batch.id, to_string(error)));
}

void BatchRunner::go_on(BatchWork& batch) {
  if (std::exchange(batch.waits_for_disk, false)) --stalled_;
}

void BatchRunner::hear(std::vector<Reply> replies) {
  for (Reply& told : replies) {
    const auto at =
        std::find_if(active_.begin(), active_.end(), [&](const auto& b) { return b->batch.id == told.batch; });
    if (at == active_.end()) continue;
    BatchWork& batch = **at;
    const auto asked = batch.asked.find(told.line);
    if (asked == batch.asked.end()) continue;
    const std::string request_id = asked->second.call->request_id();
    batch.asked.erase(asked);
    BatchReply& reply = told.reply;
    const std::string& id = batch.input->lines()[told.line].custom_id;
    const bool full = (reply.status == 429 && !reply.hopeless) || reply.status == 503;
    const bool late = reply.status == 408 || reply.status == kClientGone;
    if (batch.ending && reply.status != 200) continue;  // it was ended by us
    if (full) {
      batch.again.push_back(told.line);
      batch.not_before =
          std::chrono::steady_clock::now() + std::chrono::seconds(std::clamp(reply.retry_after_s, 1, 60));
    } else if (late && ++batch.attempts[told.line] < options_.attempts) {
      batch.again.push_back(told.line);
    } else if (late) {
      batch.unsaved.push_back({.custom_id = id,
                               .request_id = request_id,
                               .body = {},
                               .code = "request_timeout",
                               .message = "The request took too long to be answered."});
    } else if (reply.status == 401) {
      batch.again.push_back(told.line);  // its next attempt tells, and ends the batch
    } else {
      batch.unsaved.push_back({id, reply.status, request_id, std::move(reply.body)});
    }
  }
  for (const auto& batch : active_) save(*batch);
  under_way_ -= replies.size();
}

void BatchRunner::save(BatchWork& batch) {
  if (batch.unsaved.empty() || batch.stalled_until > std::chrono::steady_clock::now()) return;
  const BatchProgress before = batch.results->progress();
  if (const Status saved = batch.results->add(batch.unsaved); !saved.has_value()) return stall(batch, saved.error());
  batch.unsaved.clear();
  const BatchProgress& progress = batch.results->progress();
  completed_ += static_cast<std::uint64_t>(progress.completed - before.completed);
  failed_ += static_cast<std::uint64_t>(progress.failed - before.failed);
  const auto now = store_.batches().set_progress(batch.batch.id, progress);
  if (!now.has_value()) return stall(batch, now.error());  // they are counted with the next ones, or at the end
  go_on(batch);
  batch.batch = *now;
  if (now->status == BatchStatus::kCancelling) end(batch, BatchStatus::kCancelled);
}

void BatchRunner::look() {
  looked_ = std::chrono::steady_clock::now();
  for (const auto& batch : active_) {
    const auto now = store_.batches().find(batch->batch.id);
    if (now.has_value() && now->status == BatchStatus::kCancelling) end(*batch, BatchStatus::kCancelled);
    if (options_.clock() >= batch->batch.expires_at) end(*batch, BatchStatus::kExpired);
  }
}

/// The first reason counts.
void BatchRunner::end(BatchWork& batch, BatchStatus as, Json errors) {
  if (batch.ending) return;
  batch.ending = as;
  batch.errors = std::move(errors);
  for (const auto& [line, asked] : batch.asked) asked.call->cancel();
}

void BatchRunner::end_where_done() {
  const SteadyTime now = std::chrono::steady_clock::now();
  for (const auto& batch : active_) {
    if (!batch->is_over() || batch->stalled_until > now || !finish(*batch)) continue;
    go_on(*batch);
    batch->batch.id.clear();
  }
  const std::size_t before = active_.size();
  std::erase_if(active_, [](const auto& batch) { return batch->batch.id.empty(); });
  working_on_ = active_.size();
  if (active_.size() < before) wake();  // others may be taken
}

/// False: it waits for a better time.
bool BatchRunner::finish(BatchWork& batch) {
  Status finished = batch.finish(store_, log_);
  if (!finished.has_value() && !may_pass(finished.error())) {
    log_.warning(fmt::format("{} fails: {}", batch.batch.id, to_string(finished.error())));
    finished = batch.give_up(store_);
    if (!finished.has_value() && !may_pass(finished.error()))
      log_.warning(fmt::format("{} is left as it is: {}", batch.batch.id, to_string(finished.error())));
  }
  if (finished.has_value() || !may_pass(finished.error())) return true;
  stall(batch, finished.error());
  return false;
}

/// Whether so many answers more may be under way now.
bool BatchRunner::has_room(const std::string& endpoint, const std::string& model, std::size_t answers) const {
  const ServedModelPtr served = services_.models->find(model);
  std::size_t all = 0, own = 0;  // own: computed by the same model
  for (const auto& batch : active_) {
    for (const auto& [line, asked] : batch->asked) {
      all += asked.answers;
      const ServedModelPtr other = services_.models->find(asked.model);
      if (!served || !other) continue;
      const bool same_host = other->text && served->text && other->text->host() == served->text->host();
      if (other == served || same_host) own += asked.answers;
    }
  }
  const auto fits = [&](std::size_t under_way, std::size_t most) {
    return under_way == 0 || under_way + answers <= most;
  };
  if (!fits(all, options_.answers)) return false;
  if (!served) return true;
  bool busy = false;
  if (endpoint == "/v1/embeddings") {
    busy = served->embedding && served->embedding->waiting() > own * 16;
  } else if (served->labels) {
    busy = served->labels->batcher->waiting() > own * 16;
  } else if (served->text) {
    busy = *served->text->host()->live > 0;
  }
  return !busy || fits(own, options_.beside);
}

/// First the owner whose last request is the longest ago, and of his batches the one of which that holds.
std::vector<BatchWork*> BatchRunner::in_turn() const {
  std::map<std::string, std::uint64_t> owners;
  std::vector<BatchWork*> out;
  for (const auto& batch : active_) {
    std::uint64_t& last = owners[batch->batch.owner];
    last = std::max(last, batch->turn);
    out.push_back(batch.get());
  }
  const auto turn = [&](const BatchWork* batch) { return std::pair(owners[batch->batch.owner], batch->turn); };
  std::stable_sort(out.begin(), out.end(), [&](const auto* a, const auto* b) { return turn(a) < turn(b); });
  return out;
}

/// One request of the next batch in turn that has one. False: none can be asked now.
bool BatchRunner::submit_next() {
  if (draining_ || stopping_) return false;
  for (BatchWork* batch : in_turn()) {
    if (batch->ending || std::max(batch->not_before, batch->stalled_until) > std::chrono::steady_clock::now()) continue;
    if (!batch->has_line() || !start(*batch) || !submit(*batch)) continue;
    batch->turn = ++turns_;
    return true;
  }
  return false;
}

bool BatchRunner::submit(BatchWork& batch) {
  const std::size_t line = batch.again.empty() ? batch.next : batch.again.front();
  const BatchInput::Line& about = batch.input->lines()[line];
  Json body = batch.input->body(line);
  const std::string model = body.contains("model") && body["model"].is_string() ? body["model"].get<std::string>() : "";
  if (!has_room(batch.batch.endpoint, model, about.answers)) return false;
  const auto took = [&] {
    if (batch.again.empty())
      ++batch.next;
    else
      batch.again.pop_front();
  };
  if (wants_stream(body)) {
    took();
    const ApiError error =
        ApiError::invalid("stream", "'stream': a request of a batch is answered in one piece", "unsupported_parameter");
    batch.unsaved.push_back({about.custom_id, 400, random_id("req-", 24), error_json(error)});
    wake();
    return true;
  }
  ApiResult<Principal> principal = door_.background(batch.batch.owner);
  if (!principal.has_value()) {
    const ApiError& error = principal.error();
    if (error.status != 429) {
      end(batch, BatchStatus::kFailed, batch_error(error.code, error.message));
      wake();
    } else {
      batch.not_before =
          std::chrono::steady_clock::now() + std::chrono::seconds(std::clamp(error.retry_after_s, 1, 60));
    }
    return false;
  }
  principal->priority = kLowest;
  took();
  ++under_way_;
  const BatchCallOptions options{&services_, observers_, batch.route, batch.batch.id};
  BatchWork::Asked& place = batch.asked[line];
  place = {nullptr, model, about.answers};
  place.call = ask(options, dump_json(body), std::move(*principal),
                   [inbox = inbox_, id = batch.batch.id, line](BatchReply reply) {
                     const std::lock_guard lock(inbox->mutex);
                     inbox->replies.push_back({id, line, std::move(reply)});
                     inbox->changed.notify_all();
                   });
  return true;
}

}  // namespace tailor
