// Concurrent answers of the engine without HTTP: chats that share a system's prompt.
//   bench_engine_chats MODEL.gguf CHATS [REQUESTS_EACH=2] [SHARED=500] [OWN=40] [ANSWER=64] [LANES=0] [ADAPTERS…]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <thread>

#include "core/rng.h"
#include "infer/engine.h"

using namespace tailor;
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Waiter final : AnswerListener {
  std::promise<void> done;
  double first = 0;
  std::size_t cached = 0, tokens = 0;
  void on_prompt(int, const PromptRead& read) override {
    first = now();
    cached = read.cached;
  }
  void on_text(int, std::string_view, std::span<const SampledToken>) override { ++tokens; }
  void on_end(int, const AnswerEnd&) override { done.set_value(); }
  void on_error(int, const Error& error) override {
    std::fprintf(stderr, "%s\n", to_string(error).c_str());
    done.set_value();
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const auto number = [&](int i, int usual) { return argc > i ? std::atoi(argv[i]) : usual; };
  const int chats = number(2, 1), each = number(3, 2), shared = number(4, 500), own = number(5, 40),
            answer = number(6, 64);
  Engine engine =
      Engine::load(argv[1], {.lanes = number(7, 0), .flash_attention = std::getenv("NO_FLASH") == nullptr}).value();
  std::vector<AdapterId> adapters{0};
  for (int i = 8; i < argc; ++i) {
    if (i == 8) adapters.clear();
    adapters.push_back(engine.add_adapter(argv[i]).value());
  }
  const auto tokens = [&](std::uint64_t seed, int n) {
    Rng rng(seed);
    TokenList out;
    for (int i = 0; i < n; ++i) out.push_back(static_cast<std::int32_t>(20 + rng.below(40000)));
    return out;
  };
  const TokenList common = tokens(1, shared);
  std::vector<double> first;
  std::mutex mutex;
  std::size_t made = 0, cached = 0;
  const double begin = now();
  std::vector<std::thread> threads;
  for (int chat = 0; chat < chats; ++chat) {
    threads.emplace_back([&, chat] {
      for (int k = 0; k < each; ++k) {
        EngineRequest request;
        request.prompt = common;
        const TokenList mine = tokens(100 + static_cast<std::uint64_t>(chat * each + k), own);
        request.prompt.insert(request.prompt.end(), mine.begin(), mine.end());
        request.sampling = {.max_tokens = answer, .ignore_end = true};
        request.adapter = adapters[static_cast<std::size_t>(chat) % adapters.size()];
        const auto waiter = std::make_shared<Waiter>();
        const double asked = now();
        const auto ticket = engine.submit(std::move(request), waiter);
        if (!ticket.has_value()) {
          std::fprintf(stderr, "%s\n", to_string(ticket.error()).c_str());
          continue;
        }
        waiter->done.get_future().wait();
        const std::lock_guard lock(mutex);
        first.push_back(waiter->first - asked);
        made += waiter->tokens;
        cached += waiter->cached;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  const double seconds = now() - begin;
  std::sort(first.begin(), first.end());
  const EngineStats stats = engine.stats();
  std::printf(
      "%d chats: %.1f tokens/s; first token p50 %.0f ms, p95 %.0f ms; %zu of %zu prompt tokens from the cache; %d "
      "lanes, "
      "%llu steps, %llu preempted\n",
      chats, static_cast<double>(made) / seconds, 1000 * first[first.size() / 2], 1000 * first[first.size() * 95 / 100],
      cached, first.size() * static_cast<std::size_t>(shared + own), stats.lanes,
      static_cast<unsigned long long>(stats.steps), static_cast<unsigned long long>(stats.preempted));
}
