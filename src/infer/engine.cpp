#include "infer/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "core/system.h"
#include "infer/engine_impl.h"

namespace tailor {
namespace {

constexpr int kMostLanes = 8;
constexpr std::uint64_t kSmallModel = std::uint64_t{1} << 30;  // below, computing costs more than reading the weights
constexpr int kMostSequences = 96;
constexpr std::size_t kFirstCells = 1024;
constexpr std::uint64_t kLeastCells = 256;  // of a lane

}  // namespace

void EngineTicket::cancel() {
  if (!cancelled_.exchange(true)) watch_->ring();
}

Engine::Impl::~Impl() {
  alarm->stop();
  if (watch.joinable()) watch.join();
  {
    const std::lock_guard lock(mutex);
    stopping = true;
    changed.notify_all();
  }
  for (const auto& lane : lanes) lane->join();  // before any of them goes: they look at each other
  std::vector<std::unique_ptr<Lane>> ended;
  {
    const std::lock_guard lock(mutex);  // the budget may ask what they hold
    ended.swap(lanes);
  }
  ended.clear();
  cache.reset();
  for (auto& [id, job] : waiting)
    job->listener->on_error(job->choice, {ErrorCode::kCancelled, "the engine was stopped before the answer", ""});
}

LaneMemoryOptions Engine::Impl::lane_options(bool alone) const {
  LaneMemoryOptions lane;
  lane.sequences = alone ? 1 : std::min(200, options.lane_sequences * 2);
  lane.max_cells = alone ? static_cast<std::size_t>(max_context + 512) : lane_cells;
  lane.first_cells = kFirstCells;
  lane.f32_cache = options.f32_cache;
  lane.flash_attention = options.flash_attention && !options.f32_cache;
  return lane;
}

std::uint64_t Engine::Impl::most_lane_cells() const {
  const std::uint64_t all =
      static_cast<std::uint64_t>(options.lane_sequences) * static_cast<std::uint64_t>(max_context);
  const std::uint64_t rounded = (all + kLeastCells - 1) / kLeastCells * kLeastCells;
  const int limit = model->short_context();
  return limit > 0 ? std::min(rounded, static_cast<std::uint64_t>(limit)) : rounded;
}

std::size_t Engine::Impl::lane_cells_of(std::uint64_t bytes) const {
  const std::uint64_t cells = bytes / cell_bytes() / static_cast<std::uint64_t>(most_lanes);
  return static_cast<std::size_t>(std::min(cells, most_lane_cells()) / kLeastCells * kLeastCells);
}

std::size_t Engine::Impl::alone_cells_of(std::uint64_t bytes) const {
  const auto all = static_cast<std::uint64_t>(max_context);
  return by_worker() ? max_context
                     : static_cast<std::size_t>(std::min(all, bytes / cell_bytes() / kLeastCells * kLeastCells));
}

Status Engine::Impl::open_cache() {
  const std::uint64_t all_lanes = static_cast<std::uint64_t>(most_lanes) * cell_bytes();
  if (options.cache) {
    const CacheNeeds needs{kLeastCells * all_lanes, most_lane_cells() * all_lanes};
    TAILOR_TRY(cache, options.cache->join(*this, needs, model->name(), options.cache_room));
    return {};
  }
  std::uint64_t budget = options.cache_bytes > 0 ? options.cache_bytes : system_info().memory_bytes / 4;
  if (options.whole_answers)
    budget = std::max(
        budget, all_lanes * ((static_cast<std::uint64_t>(max_context) + kLeastCells - 1) / kLeastCells * kLeastCells));
  limit_cache(budget);
  if (lane_cells > 0) return {};
  return Error{ErrorCode::kOutOfMemory,
               fmt::format("{}: {} bytes are too few for keys and values: {} tokens in {} lane(s) take {}",
                           model->name(), budget, kLeastCells, most_lanes, kLeastCells * all_lanes),
               "give the cache more memory, or use fewer lanes"};
}

void Engine::Impl::limit_cache(std::uint64_t bytes) {
  const std::lock_guard lock(mutex);
  lane_cells = lane_cells_of(bytes);
  alone_cells = alone_cells_of(bytes);
  changed.notify_all();  // lanes that hold more give it back
}

std::uint64_t Engine::Impl::held_cache() const {
  const std::lock_guard lock(mutex);
  return held_bytes();
}

std::uint64_t Engine::Impl::held_bytes() const {
  std::uint64_t cells = 0;
  for (const auto& lane : lanes) cells += lane->held_cells();
  return cells * cell_bytes();
}

void Engine::Impl::open_lanes() {
  bool alone = false, together = false, other_adapter = false;
  for (const auto& [id, job] : waiting) {
    (job->alone ? alone : together) = true;
    const bool bound = std::any_of(lanes.begin(), lanes.end(), [&, &waits = job](const auto& lane) {
      return !lane->alone() && (lane->load() == 0 || lane->adapter() == waits->adapter->id);
    });
    if (!job->alone && !bound) other_adapter = true;
  }
  int usual = 0;
  bool alone_open = false;
  std::size_t least = SIZE_MAX;
  for (const auto& lane : lanes) {
    alone_open = alone_open || lane->alone();
    if (lane->alone()) continue;
    ++usual;
    least = std::min(least, lane->load());
  }
  if (alone && !alone_open) lanes.push_back(std::make_unique<Lane>(*this, true));
  // As many lanes as cores while they are short; then more, since each attends over all of its own cells.
  const std::size_t busy = usual < usual_lanes ? 1 : static_cast<std::size_t>(options.lane_sequences) / 2;
  if (together && usual < most_lanes && (usual == 0 || least >= busy || other_adapter))
    lanes.push_back(std::make_unique<Lane>(*this, false));
}

std::size_t Engine::Impl::places(std::int64_t group) const {
  if (group < 0)
    return std::none_of(lanes.begin(), lanes.end(), [](const auto& lane) { return lane->alone() && lane->load() > 0; })
               ? 1
               : 0;
  const auto sequences = static_cast<std::size_t>(options.lane_sequences);
  std::size_t out = 0;
  int unopened = most_lanes;
  for (const auto& lane : lanes) {
    if (lane->alone()) continue;
    --unopened;
    if (lane->load() == 0 || lane->adapter() == group) out += sequences - std::min(sequences, lane->load());
  }
  return out + static_cast<std::size_t>(std::max(0, unopened)) * sequences;
}

std::map<std::int64_t, std::size_t> Engine::Impl::waiting_groups() const {
  std::map<std::int64_t, std::size_t> out;
  queue.for_each([&](const QueuedRequest& r) { ++out[r.group]; });
  return out;
}

void Engine::Impl::account(EngineJob& job, std::uint64_t worked) {
  worked = std::min(worked, job.work);
  if (worked <= job.worked) return;
  (job.alone ? drain_alone : drain_together).done += static_cast<double>(worked - job.worked);
  job.worked = worked;
}

void Engine::Impl::measure() {
  const SteadyTime now = std::chrono::steady_clock::now();
  bool together = false, alone = false;
  for (const auto& [group, count] : waiting_groups()) {
    if (is_behind(group, count)) (group < 0 ? alone : together) = true;
  }
  drain_together.rate.advance(std::exchange(drain_together.done, 0), together, now);
  drain_alone.rate.advance(std::exchange(drain_alone.done, 0), alone, now);
}

void Engine::Impl::release(EngineAdapter& adapter) {
  --adapter.users;
  forget_if_unused(adapter);
}

void Engine::Impl::forget_if_unused(EngineAdapter& adapter) {
  if (!adapter.removed || adapter.users > 0) return;
  for (const auto& lane : lanes) {
    if (lane->adapter() == adapter.id) return changed.notify_all();  // which drops it when it has nothing else to do
  }
  const std::string spaces = fmt::format("{}/", adapter.id);
  beginnings->kept.drop_spaces([&](const std::string& space) { return space.starts_with(spaces); });
  if (adapter.lora != nullptr) model->drop_adapter(adapter.lora);
  adapters.erase(adapter.id);
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

Result<Engine> Engine::load(const std::filesystem::path& gguf, const EngineOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->options.lane_sequences = std::clamp(options.lane_sequences, 1, kMostSequences);
  impl->options.chunk_tokens = std::clamp(options.chunk_tokens, 16, 512 - impl->options.lane_sequences);
  TAILOR_TRY(impl->model, LoadedModel::load(gguf, {}));
  TAILOR_CHECK(impl->model->require_decoder("text can be generated"));
  const llama_model* model = impl->model->get();
  const int cores = options.threads > 0 ? options.threads : system_info().cores;
  impl->share = options.share ? options.share : std::make_shared<ComputeShare>(cores);
  if (impl->by_worker()) {
    TAILOR_TRY(impl->torch, TorchWorker::start(gguf, options.worker, impl->share->cores()));
  }
  // A large model's step is as long as reading its weights takes; more lanes would read them more often.
  const bool small = llama_model_size(model) <= kSmallModel;
  impl->usual_lanes = options.lanes > 0 ? options.lanes : small ? std::min(impl->share->cores(), kMostLanes) : 1;
  impl->most_lanes = options.lanes > 0 ? options.lanes : small ? std::min(2 * impl->usual_lanes, kMostLanes) : 1;
  const int trained = llama_model_n_ctx_train(model);
  impl->max_context = options.max_context > 0 ? std::min(options.max_context, trained) : trained;
  if (impl->model->own_products() && !impl->by_worker()) TAILOR_CHECK(impl->model->touch_weights());

  TAILOR_CHECK(impl->open_cache());
  impl->queue = RequestQueue(options.queue);
  impl->beginnings = std::make_unique<SharedBeginnings>(impl->mutex, impl->changed, options.kept_bytes);
  impl->beginnings->gone = [self = impl.get()](const std::string& space) {
    const auto adapter = self->adapters.find(std::strtoll(space.c_str(), nullptr, 10));
    return adapter == self->adapters.end() || adapter->second.removed;
  };
  impl->adapters[0] = EngineAdapter{};
  impl->ends = impl->model->end_tokens();
  impl->watch = std::thread([self = impl.get()] { self->watch_waiting(); });
  return Engine(std::move(impl));
}

const Tokenizer& Engine::tokenizer() const {
  return impl_->model->tokenizer();
}
std::string Engine::chat_template() const {
  return impl_->model->chat_template();
}
int Engine::max_context() const {
  return impl_->max_context;
}
int Engine::vocabulary() const {
  return impl_->model->vocabulary();
}

Result<AdapterId> Engine::Impl::add(EngineAdapter adapter) {
  if (by_worker())
    return Error{ErrorCode::kUnavailable, model->name() + " has bottleneck adapters and takes no further one", ""};
  const std::lock_guard lock(mutex);
  adapter.id = next_adapter++;
  adapters[adapter.id] = adapter;
  return adapter.id;
}

Result<AdapterId> Engine::add_adapter(const std::filesystem::path& file) {
  EngineAdapter adapter;
  TAILOR_TRY(adapter.lora, impl_->model->load_adapter(file));
  return impl_->add(adapter);
}

Result<SequenceBytes> Engine::Impl::soft_state(const SoftPrompt& prompt, bool beyond) const {
  LaneMemoryOptions scratch = lane_options(true);
  std::size_t cells = static_cast<std::size_t>(prompt.length()) + 512;
  if (const auto limit = static_cast<std::size_t>(model->short_context()); limit > 0)
    cells = beyond ? std::max(cells, limit + 512) : std::min(cells, limit);
  scratch.first_cells = scratch.max_cells = cells;
  LaneMemory memory(model, scratch);
  TAILOR_CHECK(memory.open());
  TAILOR_CHECK(decode_soft_prompt(memory.context(), prompt, scratch.batch));
  auto bytes = std::make_shared<PageBytes>(llama_state_seq_get_size(memory.context(), 0));
  if (llama_state_seq_get_data(memory.context(), bytes->data(), bytes->size(), 0) != bytes->size())
    return Error{ErrorCode::kInternal, "llama.cpp did not hand out the state of a sequence", ""};
  return SequenceBytes(std::move(bytes));
}

Result<AdapterId> Engine::add_soft_prompt(const std::filesystem::path& file) {
  TAILOR_TRY(const SoftPrompt prompt, SoftPrompt::load(file));
  if (prompt.length() >= impl_->max_context) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: the soft prompt fills the context: expected fewer than {} tokens, got {}",
                             file.string(), impl_->max_context, prompt.length()),
                 "allow a longer context, or train a shorter soft prompt"};
  }
  EngineAdapter adapter;
  TAILOR_TRY(adapter.soft, impl_->soft_state(prompt, false));
  if (impl_->model->short_context() > 0) {
    TAILOR_TRY(adapter.soft_beyond, impl_->soft_state(prompt, true));
  }
  adapter.soft_tokens = static_cast<std::size_t>(prompt.length());
  return impl_->add(adapter);
}

void Engine::remove_adapter(AdapterId id) {
  const std::lock_guard lock(impl_->mutex);
  const auto adapter = impl_->adapters.find(id);
  if (adapter == impl_->adapters.end() || id == 0) return;
  adapter->second.removed = true;
  impl_->forget_if_unused(adapter->second);
}

int Engine::soft_tokens(AdapterId id) const {
  const std::lock_guard lock(impl_->mutex);
  const auto adapter = impl_->adapters.find(id);
  return adapter == impl_->adapters.end() ? 0 : static_cast<int>(adapter->second.soft_tokens);
}

Result<std::shared_ptr<EngineTicket>> Engine::submit(EngineRequest request, std::shared_ptr<AnswerListener> listener) {
  Impl& self = *impl_;
  if (request.prompt.empty())
    return Error{ErrorCode::kInvalidArgument, "there is nothing to go on from: the prompt is empty", ""};
  const int vocabulary = self.model->vocabulary();
  const auto unknown = [&](std::int32_t t) { return t < 0 || t >= vocabulary; };
  const auto check = [&](std::int32_t t) -> Status {
    if (!unknown(t)) return {};
    return Error{ErrorCode::kInvalidArgument, fmt::format("token {} is not one of the model's {}", t, vocabulary), ""};
  };
  for (const std::int32_t t : request.prompt) TAILOR_CHECK(check(t));
  for (const auto& [t, bias] : request.sampling.logit_bias) TAILOR_CHECK(check(t));
  for (const std::int32_t t : request.sampling.stop_tokens) TAILOR_CHECK(check(t));
  if (self.by_worker()) request.invariant = true;  // one answer at a time in any case

  const std::lock_guard lock(self.mutex);
  const auto adapter = self.adapters.find(request.adapter);
  if (adapter == self.adapters.end() || adapter->second.removed)
    return Error{ErrorCode::kNotFound, "the adapter was removed", "ask for another model"};
  const int short_context = self.model->short_context();
  const auto soft = adapter->second.soft_tokens;
  const bool idle = self.waiting.empty() && std::all_of(self.lanes.begin(), self.lanes.end(),
                                                        [](const auto& lane) { return lane->load() == 0; });
  const bool alone =
      request.invariant || (request.repeatable && idle) ||
      (short_context > 0 && soft + request.prompt.size() + static_cast<std::size_t>(request.sampling.max_tokens) >
                                static_cast<std::size_t>(short_context));
  const std::size_t room =
      std::min(static_cast<std::size_t>(self.max_context), alone ? self.alone_cells : self.lane_cells);
  const std::size_t reach = room - std::min(room, soft);
  const std::size_t needed = request.prompt.size() + (request.only_prompt ? 0 : 1);
  if (needed > reach) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("the prompt has {} tokens; the model reads {}, its answer included", request.prompt.size(), reach),
        reach > 0
            ? "shorten the prompt"
            : fmt::format("give the cache more memory: it holds {} tokens, and the soft prompt has {}", room, soft)};
  }
  const auto ticket = std::make_shared<EngineTicket>(self.alarm);
  const int choices = std::max(1, request.choices);
  const auto shared = std::make_shared<const EngineRequest>(std::move(request));
  const SteadyTime now = std::chrono::steady_clock::now();
  std::vector<std::int64_t> queued;
  for (int choice = 0; choice < choices; ++choice) {
    auto job = std::make_unique<EngineJob>();
    job->id = self.next_id++;
    job->request = shared;
    job->choice = choice;
    job->listener = listener;
    job->ticket = ticket;
    job->adapter = &adapter->second;
    job->space = fmt::format("{}/{}", shared->adapter, shared->cache_space);
    job->alone = alone;
    job->promised_cells = self.lane_cells;
    job->max_tokens =
        shared->only_prompt
            ? 0
            : static_cast<int>(std::min(static_cast<std::size_t>(std::max(1, shared->sampling.max_tokens)),
                                        reach - shared->prompt.size()));
    job->submitted = now;
    job->tokens = shared->prompt;
    job->text = TextStream(shared->sampling.stop, shared->sampling.keep_stop);
    const int expected =
        shared->expected_answer > 0 ? std::min(shared->expected_answer, job->max_tokens) : job->max_tokens;
    job->work = shared->prompt.size() + static_cast<std::size_t>(expected);
    const Status pushed = self.queue.push({.id = job->id,
                                           .client = shared->client,
                                           .priority = shared->priority,
                                           .tokens = job->work,
                                           .group = alone ? -1 - shared->adapter : shared->adapter,
                                           .since = now},
                                          now);
    if (!pushed.has_value()) {  // all choices or none
      for (const std::int64_t id : queued) {
        self.queue.remove(id);
        self.waiting.erase(id);
        --adapter->second.users;
      }
      return pushed.error();
    }
    queued.push_back(job->id);
    ++adapter->second.users;
    self.watch_for(*job);
    self.waiting[job->id] = std::move(job);
  }
  self.open_lanes();
  self.changed.notify_all();
  return ticket;
}

Engine::Hold::Hold(Engine& engine) : impl_(*engine.impl_) {
  const std::lock_guard lock(impl_.mutex);
  ++impl_.held;
}

Engine::Hold::~Hold() {
  const std::lock_guard lock(impl_.mutex);
  --impl_.held;
  impl_.changed.notify_all();
}

void Engine::forget_beginnings() {
  const std::lock_guard lock(impl_->mutex);
  ++impl_->times_forgotten;
  impl_->beginnings->kept.drop_spaces([](const std::string&) { return true; });
}

ExpectedWait Engine::expected_wait(const std::string& client, int priority, AdapterId adapter, bool alone) const {
  const std::lock_guard lock(impl_->mutex);
  ExpectedWait out;
  out.tokens_per_second = impl_->drain_per_second(alone);
  const std::int64_t group = alone ? -1 - adapter : adapter;
  const auto groups = impl_->waiting_groups();
  const auto same = groups.find(group);
  const std::size_t with_this = 1 + (same == groups.end() ? 0 : same->second);
  if (out.tokens_per_second <= 0 || !impl_->is_behind(group, with_this)) return out;
  const WorkAhead ahead =
      impl_->queue.ahead_of(client, priority, [&](const QueuedRequest& r) { return (r.group < 0) == alone; });
  out.seconds = ahead.all / out.tokens_per_second;
  out.own_seconds = ahead.own / out.tokens_per_second;
  return out;
}

const QueueLimits& Engine::queue_limits() const {
  return impl_->options.queue;
}

EngineStats Engine::stats() const {
  const std::lock_guard lock(impl_->mutex);
  EngineStats out = impl_->counts;
  out.lanes = static_cast<int>(impl_->lanes.size());
  out.waiting = static_cast<int>(impl_->waiting.size());
  out.waiting_tokens = impl_->queue.tokens();
  out.cells = impl_->lane_cells * static_cast<std::size_t>(impl_->most_lanes);
  out.cache_bytes = impl_->held_bytes();
  for (const auto& lane : impl_->lanes) {
    out.running += static_cast<int>(lane->load());
    out.cells_used += lane->used_cells();
    if (lane->load() > 0) out.running_adapters.push_back(lane->adapter());
    if (lane->computing_since() && (!out.computing_since || *lane->computing_since() < *out.computing_since))
      out.computing_since = lane->computing_since();
  }
  out.drain_tokens_per_second = impl_->drain_per_second(false);
  std::uint64_t together = 0;
  bool behind = false;
  for (const auto& [group, waiting] : impl_->waiting_groups())
    behind = behind || (group >= 0 && impl_->is_behind(group, waiting));
  impl_->queue.for_each([&](const QueuedRequest& r) {
    if (r.group >= 0) together += r.tokens;
    const AdapterId id = r.group < 0 ? -1 - r.group : r.group;
    if (std::find(out.waiting_adapters.begin(), out.waiting_adapters.end(), id) == out.waiting_adapters.end())
      out.waiting_adapters.push_back(id);
  });
  if (behind && out.drain_tokens_per_second > 0)
    out.waiting_seconds = static_cast<double>(together) / out.drain_tokens_per_second;
  out.kept_bytes = impl_->beginnings->kept.bytes();
  return out;
}

}  // namespace tailor
