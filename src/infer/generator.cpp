#include "infer/generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "core/system.h"

namespace tailor {
namespace {

constexpr std::size_t kTogether = 1024;  // texts that the engine knows at a time; what is computed at once is less
constexpr std::uint64_t kMostCache = std::uint64_t{2} << 30;
constexpr std::chrono::milliseconds kPoll{20};  // until a cancellation is seen

/// Of one request.
struct Event {
  std::size_t request = 0;
  std::string text;
  TokenList tokens;
  std::optional<PromptRead> read;
  std::optional<AnswerEnd> end;
  std::optional<Error> error;  // instead of an end
};

/// From the engine's threads to the one that waits.
class Inbox {
 public:
  void put(Event event, bool wake) {
    {
      const std::lock_guard lock(mutex_);
      events_.push_back(std::move(event));
    }
    if (wake) changed_.notify_one();
  }
  /// What has come; after a moment perhaps nothing.
  std::vector<Event> take() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPoll, [&] { return !events_.empty(); });
    return std::exchange(events_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Event> events_;
};

class Listener final : public AnswerListener {
 public:
  Listener(std::shared_ptr<Inbox> inbox, std::size_t request, bool streams)
      : inbox_(std::move(inbox)), request_(request), streams_(streams) {}
  void on_prompt(int, const PromptRead& read) override { inbox_->put({.request = request_, .read = read}, false); }
  void on_text(int, std::string_view text, std::span<const SampledToken> tokens) override {
    Event event{.request = request_, .text = std::string(text)};
    for (const SampledToken& t : tokens) event.tokens.push_back(t.token);
    inbox_->put(std::move(event), streams_ && !text.empty());
  }
  void on_end(int, const AnswerEnd& end) override { inbox_->put({.request = request_, .end = end}, true); }
  void on_error(int, const Error& error) override { inbox_->put({.request = request_, .error = error}, true); }

 private:
  std::shared_ptr<Inbox> inbox_;
  std::size_t request_;
  bool streams_;
};

void add(const Event& event, GeneratedText& answer) {
  answer.text += event.text;
  answer.tokens.insert(answer.tokens.end(), event.tokens.begin(), event.tokens.end());
  if (event.read) {
    answer.prompt_tokens = event.read->tokens;
    answer.reused_tokens = event.read->cached;
  }
  if (event.end) answer.finish = event.end->reason;
}

}  // namespace

Error of_text(const Error& error, std::size_t index, std::size_t count) {
  if (count == 1) return error;
  return {error.code, fmt::format("text {} of {}: {}", index + 1, count, error.message), error.hint};
}

struct Generator::Impl {
  explicit Impl(Engine e) : engine(std::move(e)) {}
  Engine engine;
  AdapterId soft = 0;  // the soft prompt; 0: none

  /// Requests that begin together, whatever came before where `afresh`; `indices` are their places among the `count`
  /// texts of the call, for errors. `take` hears of what comes until it says false or an error, which ends what still
  /// runs.
  Status run(std::vector<EngineRequest> requests, std::span<const std::size_t> indices, std::size_t count, bool afresh,
             bool streams, const std::function<Result<bool>(const Event&)>& take, const CancelToken& cancel);
};

Status Generator::Impl::run(std::vector<EngineRequest> requests, std::span<const std::size_t> indices,
                            std::size_t count, bool afresh, bool streams,
                            const std::function<Result<bool>(const Event&)>& take, const CancelToken& cancel) {
  const Error interrupted{ErrorCode::kCancelled, "the work was interrupted", ""};
  if (cancel.cancelled()) return interrupted;
  const auto inbox = std::make_shared<Inbox>();
  std::vector<std::shared_ptr<EngineTicket>> tickets;
  Status outcome;
  bool over = false;
  const auto end_all = [&](Status with) {
    over = true;
    outcome = std::move(with);
    for (const auto& ticket : tickets) ticket->cancel();
  };
  {
    const Engine::Hold hold(engine);
    if (afresh) engine.forget_beginnings();
    for (std::size_t i = 0; i < requests.size() && !over; ++i) {
      requests[i].adapter = soft;
      auto ticket = engine.submit(std::move(requests[i]), std::make_shared<Listener>(inbox, i, streams));
      if (ticket.has_value()) {
        tickets.push_back(std::move(*ticket));
      } else {
        end_all(of_text(ticket.error(), indices[i], count));
      }
    }
  }
  std::size_t ended = 0;
  while (ended < tickets.size()) {
    if (!over && cancel.cancelled()) end_all(interrupted);
    for (const Event& event : inbox->take()) {
      if (event.end || event.error) ++ended;
      if (over) continue;
      if (event.error) {
        end_all(of_text(*event.error, indices[event.request], count));
        continue;
      }
      const Result<bool> more = take(event);
      if (!more.has_value()) {
        end_all(more.error());
      } else if (!*more) {
        end_all({});
      }
    }
  }
  return outcome;
}

Generator::Generator(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Generator::Generator(Generator&&) noexcept = default;
Generator& Generator::operator=(Generator&&) noexcept = default;
Generator::~Generator() = default;

int Generator::max_context() const {
  return impl_->engine.max_context() - impl_->engine.soft_tokens(impl_->soft);
}
const Tokenizer& Generator::tokenizer() const {
  return impl_->engine.tokenizer();
}
int Generator::vocabulary() const {
  return impl_->engine.vocabulary();
}

Result<Generator> Generator::load(const std::filesystem::path& gguf, const GeneratorOptions& options) {
  EngineOptions engine;
  engine.threads = options.threads;
  engine.lanes = 1;
  engine.max_context = options.max_context;
  engine.cache_bytes = std::min(kMostCache, system_info().memory_bytes / 8);
  engine.kept_bytes = 0;
  engine.chunk_tokens = 512;  // nobody waits for the next word
  engine.queue.requests = kTogether;
  engine.queue.tokens = std::uint64_t{1} << 60;
  engine.whole_answers = true;
  engine.f32_cache = options.f32_cache;
  engine.flash_attention = options.flash_attention;
  engine.worker = options.worker;
  TAILOR_TRY(Engine loaded, Engine::load(gguf, engine));
  auto impl = std::make_unique<Impl>(std::move(loaded));
  if (!options.soft_prompt.empty()) {
    TAILOR_TRY(impl->soft, impl->engine.add_soft_prompt(options.soft_prompt));
  }
  return Generator(std::move(impl));
}

Result<GeneratedText> Generator::generate(std::span<const std::int32_t> prompt, const SamplingOptions& options,
                                          const TextSink& sink, const CancelToken& cancel) {
  std::vector<EngineRequest> requests(1);
  requests[0].prompt.assign(prompt.begin(), prompt.end());
  requests[0].sampling = options;
  GeneratedText out;
  const auto take = [&](const Event& event) -> Result<bool> {
    add(event, out);
    return event.text.empty() || !sink || sink(event.text);
  };
  const std::size_t first = 0;
  TAILOR_CHECK(impl_->run(std::move(requests), {&first, 1}, 1, false, sink != nullptr, take, cancel));
  return out;
}

Result<std::vector<GeneratedText>> Generator::generate_all(std::span<const TokenList> prompts,
                                                           const SamplingOptions& options, const AnswerSink& ended,
                                                           const CancelToken& cancel) {
  std::vector<GeneratedText> out(prompts.size());
  for (std::size_t first = 0; first < prompts.size(); first += kTogether) {
    std::vector<EngineRequest> requests;
    std::vector<std::size_t> indices;
    for (std::size_t i = first; i < std::min(first + kTogether, prompts.size()); ++i) {
      EngineRequest& request = requests.emplace_back();
      request.prompt = prompts[i];
      request.sampling = options;
      indices.push_back(i);
    }
    const auto take = [&](const Event& event) -> Result<bool> {
      const std::size_t i = indices[event.request];
      add(event, out[i]);
      if (event.end && ended) TAILOR_CHECK(ended(i, out[i]));
      return true;
    };
    TAILOR_CHECK(impl_->run(std::move(requests), indices, prompts.size(), first == 0, false, take, cancel));
  }
  return out;
}

Result<std::vector<double>> Generator::losses(std::span<const std::int32_t> tokens, std::span<const std::uint8_t> mask,
                                              const CancelToken& cancel) {
  const ScoredText text{tokens, mask};
  TAILOR_TRY(std::vector<std::vector<double>> all, losses_all({&text, 1}, {}, cancel));
  return std::move(all[0]);
}

Result<std::vector<std::vector<double>>> Generator::losses_all(std::span<const ScoredText> texts, const DoneFn& done,
                                                               const CancelToken& cancel) {
  std::vector<std::vector<double>> out(texts.size());
  std::size_t ended = 0;
  for (std::size_t first = 0; first < texts.size(); first += kTogether) {
    std::vector<EngineRequest> requests;
    std::vector<std::size_t> indices, begins;
    for (std::size_t i = first; i < std::min(first + kTogether, texts.size()); ++i) {
      const auto& [tokens, mask] = texts[i];
      if (tokens.size() > static_cast<std::size_t>(max_context())) {
        return of_text({ErrorCode::kInvalidArgument,
                        fmt::format("the text has {} tokens; the model reads {}", tokens.size(), max_context()), ""},
                       i, texts.size());
      }
      std::size_t begin = 1, end = tokens.size();  // of those that count
      while (begin < end && mask[begin] == 0) ++begin;
      while (end > begin && mask[end - 1] == 0) --end;
      if (begin >= end) {
        ++ended;
        continue;
      }
      EngineRequest& request = requests.emplace_back();
      request.prompt.assign(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(end));
      request.sampling.max_tokens = 0;
      request.only_prompt = true;
      request.prompt_logprobs = 0;
      request.logprobs_from = begin;
      indices.push_back(i);
      begins.push_back(begin);
    }
    const auto take = [&](const Event& event) -> Result<bool> {
      const std::size_t i = indices[event.request], begin = begins[event.request];
      for (std::size_t k = 0; event.read && k < event.read->logprobs.size(); ++k) {
        if (texts[i].mask[begin + k] != 0) out[i].push_back(-static_cast<double>(event.read->logprobs[k].logprob));
      }
      if (event.end) ++ended;
      if (event.end && done) done(ended);
      return true;
    };
    TAILOR_CHECK(impl_->run(std::move(requests), indices, texts.size(), first == 0, false, take, cancel));
  }
  return out;
}

}  // namespace tailor
