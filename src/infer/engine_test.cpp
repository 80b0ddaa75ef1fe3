#include "infer/engine.h"

#include <gtest/gtest.h>
#include <llama.h>

#include <atomic>
#include <condition_variable>
#include <future>
#include <mutex>
#include <string_view>
#include <thread>

#include "infer/label_scorer.h"
#include "infer/test_models.h"
#include "infer/test_reference.h"
#include "model/llama_runtime.h"

namespace tailor {
namespace {

using testing::expect_error;
using testing::tiny_llama;

/// Exact arithmetic, so that company changes nothing by more than rounding.
EngineOptions exact() {
  EngineOptions options;
  options.threads = 2;
  options.lanes = 2;
  options.cache_bytes = std::uint64_t{64} << 20;
  options.f32_cache = true;
  return options;
}

TokenList some_tokens(std::size_t n, std::uint64_t seed = 4) {
  Rng rng(seed);
  TokenList tokens(n);
  for (std::int32_t& t : tokens) t = static_cast<std::int32_t>(20 + rng.below(40000));
  return tokens;
}
TokenList joined(TokenList a, const TokenList& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// Keeps what it hears of all choices. Waits without a bound, ctest has one: what is read after that is complete.
class Heard final : public AnswerListener {
 public:
  struct Choice {
    PromptRead prompt;
    std::string text;
    TokenList tokens;
    std::vector<SampledToken> sampled;
    std::optional<AnswerEnd> end;
    std::optional<Error> error;
  };
  explicit Heard(int choices = 1) : choices_(static_cast<std::size_t>(choices)), left_(choices) {}

  void on_prompt(int choice, const PromptRead& read) override {
    const std::lock_guard lock(mutex_);
    at(choice).prompt = read;
  }
  void on_text(int choice, std::string_view text, std::span<const SampledToken> tokens) override {
    std::unique_lock lock(mutex_);
    at(choice).text += text;
    for (const SampledToken& t : tokens) {
      at(choice).tokens.push_back(t.token);
      at(choice).sampled.push_back(t);
    }
    if (on_token) on_token(at(choice));
    changed_.notify_all();
  }
  void on_end(int choice, const AnswerEnd& end) override {
    const std::lock_guard lock(mutex_);
    at(choice).end = end;
    --left_;
    changed_.notify_all();
  }
  void on_error(int choice, const Error& error) override {
    const std::lock_guard lock(mutex_);
    at(choice).error = error;
    --left_;
    changed_.notify_all();
  }
  const std::vector<Choice>& wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return left_ == 0; });
    return choices_;
  }
  void wait_for_tokens(std::size_t n) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return choices_[0].tokens.size() >= n || left_ == 0; });
  }
  std::function<void(const Choice&)> on_token;

 private:
  Choice& at(int choice) { return choices_[static_cast<std::size_t>(choice)]; }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Choice> choices_;
  int left_;
};

EngineRequest ask(TokenList prompt, int max_tokens = 12) {
  EngineRequest request;
  request.prompt = std::move(prompt);
  request.sampling.max_tokens = max_tokens;
  return request;
}

Heard::Choice answer(Engine& engine, EngineRequest request) {
  const auto heard = std::make_shared<Heard>();
  engine.submit(std::move(request), heard).value();
  return heard->wait()[0];
}

std::string error_of(Heard& heard, std::size_t choice = 0) {
  return heard.wait()[choice].error.value_or(Error{}).message;
}

TEST(Engine, ManyAtOnceAnswerAsOneAlone) {
  testing::ReferenceDecoder reference(tiny_llama());
  Engine engine = Engine::load(tiny_llama(), exact()).value();
  constexpr int kMany = 24;
  std::vector<TokenList> prompts;
  std::vector<std::shared_ptr<Heard>> heard;
  for (int i = 0; i < kMany; ++i) {
    prompts.push_back(some_tokens(5 + static_cast<std::size_t>(i) * 37 % 400, static_cast<std::uint64_t>(i)));
    heard.push_back(std::make_shared<Heard>());
    engine.submit(ask(prompts.back()), heard.back()).value();
  }
  for (int i = 0; i < kMany; ++i) {
    const Heard::Choice& got = heard[static_cast<std::size_t>(i)]->wait()[0];
    const auto expected = reference.answer(prompts[static_cast<std::size_t>(i)], 12);
    EXPECT_EQ(got.tokens, expected.tokens) << i;
    EXPECT_EQ(got.text, expected.text) << i;
    EXPECT_EQ(got.prompt.tokens, prompts[static_cast<std::size_t>(i)].size());
    ASSERT_TRUE(got.end.has_value());
    EXPECT_EQ(got.end->reason, expected.finish);
  }
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.finished, static_cast<std::uint64_t>(kMany));
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.answer_tokens, static_cast<std::uint64_t>(kMany) * 12);
}

TEST(Engine, ASharedBeginningIsComputedOnce) {
  testing::ReferenceDecoder reference(tiny_llama());
  Engine engine = Engine::load(tiny_llama(), exact()).value();
  const TokenList common = some_tokens(1000);
  std::vector<std::shared_ptr<Heard>> heard;
  for (int i = 0; i < 16; ++i) {  // all at once: those that come while the first one is computed wait for it
    heard.push_back(std::make_shared<Heard>());
    engine.submit(ask(joined(common, some_tokens(10, 50 + static_cast<std::uint64_t>(i)))), heard.back()).value();
  }
  std::size_t cached = 0;
  for (int i = 0; i < 16; ++i) {
    const Heard::Choice& got = heard[static_cast<std::size_t>(i)]->wait()[0];
    cached += got.prompt.cached;
    EXPECT_EQ(got.tokens, reference.answer(joined(common, some_tokens(10, 50 + static_cast<std::uint64_t>(i)))).tokens)
        << i;
  }
  EXPECT_EQ(cached, 15u * 1000);
  EXPECT_EQ(engine.stats().computed_tokens, 1000u + 16 * 10 + 16 * 11);  // an answer's last token is not computed
}

TEST(Engine, WhatCameBeforeIsABeginningAnswersIncluded) {
  testing::ReferenceDecoder reference(tiny_llama());
  EngineOptions options = exact();
  options.lanes = 1;  // another might take the later one, and copy as much as is worth it
  Engine engine = Engine::load(tiny_llama(), options).value();
  const TokenList common = some_tokens(1000);
  answer(engine, ask(common));
  const Heard::Choice first = answer(engine, ask(common));
  const TokenList longer = joined(joined(common, first.tokens), some_tokens(5));
  const Heard::Choice later = answer(engine, ask(longer));
  EXPECT_EQ(first.prompt.cached, 999u);
  EXPECT_EQ(later.prompt.cached, 1000u + 11);
  EXPECT_EQ(later.tokens, reference.answer(longer).tokens);
}

TEST(Engine, EveryCompleteAnswerCounts) {
  Engine engine = Engine::load(tiny_llama(), exact()).value();
  EngineRequest request = ask(some_tokens(20), 2);
  answer(engine, request);
  request.use_cache = false;
  answer(engine, request);
  request.invariant = true;
  answer(engine, request);
  EXPECT_EQ(engine.stats().finished, 3u);
  EXPECT_EQ(engine.stats().failed, 0u);
}

TEST(Engine, SpacesShareNothing) {
  Engine engine = Engine::load(tiny_llama(), exact()).value();
  EngineRequest request = ask(some_tokens(300));
  request.cache_space = "one";
  answer(engine, request);
  EXPECT_EQ(answer(engine, request).prompt.cached, 299u);
  request.cache_space = "another";
  EXPECT_EQ(answer(engine, request).prompt.cached, 0u);
  request.use_cache = false;
  EXPECT_EQ(answer(engine, request).prompt.cached, 0u);
}

TEST(Engine, CancellationTakesOneStep) {
  std::shared_ptr<EngineTicket> ticket;
  std::mutex ready;
  Engine engine = Engine::load(tiny_llama(), exact()).value();
  const auto heard = std::make_shared<Heard>();
  std::unique_lock hold(ready);
  heard->on_token = [&](const Heard::Choice& choice) {
    if (choice.tokens.size() != 3) return;
    const std::lock_guard lock(ready);
    ticket->cancel();
  };
  EngineRequest request = ask(some_tokens(20), 1000);
  request.sampling.ignore_end = true;
  ticket = engine.submit(request, heard).value();
  hold.unlock();
  const Heard::Choice& got = heard->wait()[0];
  ASSERT_TRUE(got.error.has_value());
  EXPECT_EQ(got.error->code, ErrorCode::kCancelled);
  EXPECT_EQ(got.tokens.size(), 3u);
  EXPECT_EQ(engine.stats().running, 0);
}

TEST(Engine, TimeOutsEndRequestsThatWaitOrRun) {
  EngineOptions options = exact();
  options.lanes = 1;
  options.lane_sequences = 1;
  Engine engine = Engine::load(tiny_llama(), options).value();
  EngineRequest running = ask(some_tokens(20), 1900);
  running.sampling.ignore_end = true;
  const auto first = std::make_shared<Heard>(), second = std::make_shared<Heard>();
  const auto ticket = engine.submit(running, first).value();
  first->wait_for_tokens(1);
  EngineRequest late = ask(some_tokens(20));
  late.deadline = std::chrono::steady_clock::now();
  engine.submit(late, second).value();
  EXPECT_EQ(second->wait()[0].error->code, ErrorCode::kCancelled);
  EXPECT_NE(second->wait()[0].error->message.find("time-out"), std::string::npos);
  ticket->cancel();
  first->wait();
}

TEST(Engine, TooLittleMemoryForAllMakesThemWait) {
  testing::ReferenceDecoder reference(tiny_llama());
  EngineOptions options = exact();
  options.lanes = 1;
  options.cache_bytes = 1024 * 2 * 2 * 32 * 4;  // two layers' keys and values of 1,024 tokens
  options.kept_bytes = 0;
  Engine engine = Engine::load(tiny_llama(), options).value();
  EXPECT_EQ(engine.stats().cache_bytes, 0u);
  std::vector<std::shared_ptr<Heard>> heard;
  for (int i = 0; i < 6; ++i) {
    heard.push_back(std::make_shared<Heard>());
    EngineRequest request = ask(some_tokens(250, static_cast<std::uint64_t>(i)), 100);
    request.sampling.ignore_end = true;
    engine.submit(request, heard.back()).value();
  }
  for (int i = 0; i < 6; ++i) {
    const TokenList expected = reference.answer(some_tokens(250, static_cast<std::uint64_t>(i)), 100, true).tokens;
    EXPECT_EQ(heard[static_cast<std::size_t>(i)]->wait()[0].tokens, expected) << i;
  }
  EXPECT_GT(engine.stats().preempted, 0u);
  EXPECT_EQ(engine.stats().cache_bytes, options.cache_bytes);
  expect_error(engine.submit(ask(some_tokens(1100)), std::make_shared<Heard>()), ErrorCode::kInvalidArgument,
               "the model reads 1024");
}

TEST(Engine, WhatIsComputedAloneKeepsToTheBudgetAndGivesItBack) {
  EngineOptions options = exact();
  options.lanes = 1;
  options.cache_bytes = 1024 * 2 * 2 * 32 * 4;
  options.kept_bytes = 0;
  Engine engine = Engine::load(tiny_llama(), options).value();
  EngineRequest request = ask(some_tokens(250), 100'000);
  request.sampling.ignore_end = true;
  request.repeatable = true;
  const auto heard = std::make_shared<Heard>();
  engine.submit(request, heard).value();
  EXPECT_EQ(heard->wait()[0].tokens.size(), 1024u - 250);
  while (engine.stats().cache_bytes > 0) std::this_thread::yield();
}

TEST(Engine, AdaptersHaveLanesAndBeginningsOfTheirOwn) {
  TemporaryDirectory dir("engine");
  Engine engine = Engine::load(tiny_llama(), exact()).value();
  std::vector<AdapterId> adapters{0};
  std::vector<std::filesystem::path> merged{tiny_llama()};
  for (std::uint64_t i = 1; i < 5; ++i) {
    const auto file = dir.path() / ("adapter" + std::to_string(i) + ".gguf");
    testing::write_tiny_adapter(file, 64, "", 0.2, i);
    adapters.push_back(engine.add_adapter(file).value());
  }
  const TokenList prompt = some_tokens(200);
  std::vector<std::shared_ptr<Heard>> heard;
  for (int round = 0; round < 3; ++round) {
    for (const AdapterId id : adapters) {
      EngineRequest request = ask(prompt, 16);
      request.adapter = id;
      heard.push_back(std::make_shared<Heard>());
      engine.submit(request, heard.back()).value();
    }
  }
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    LabelScorer scorer =
        LabelScorer::load(tiny_llama(), {.threads = 1,
                                         .f32_cache = true,
                                         .flash_attention = false,
                                         .adapter = i == 0 ? std::filesystem::path()
                                                           : dir.path() / ("adapter" + std::to_string(i) + ".gguf")})
            .value();
    const TokenList tokens = heard[i]->wait()[0].tokens;
    TokenList text = prompt;
    for (const std::int32_t token : tokens) {
      const std::vector<float> logits = scorer.next_token_logits(text).value();
      EXPECT_EQ(token, std::max_element(logits.begin(), logits.end()) - logits.begin()) << i;
      text.push_back(token);
    }
    for (std::size_t round = 1; round < 3; ++round)
      EXPECT_EQ(heard[i + round * adapters.size()]->wait()[0].tokens, tokens);
    if (i > 0) {
      EXPECT_NE(tokens, heard[0]->wait()[0].tokens);
    }
  }
  engine.remove_adapter(adapters[2]);
  EngineRequest removed = ask(prompt);
  removed.adapter = adapters[2];
  expect_error(engine.submit(removed, std::make_shared<Heard>()), ErrorCode::kNotFound, "removed");
  expect_error(engine.add_adapter(dir.path() / "none.gguf"), ErrorCode::kNotFound, "none.gguf");
  testing::write_tiny_adapter(dir.path() / "wide.gguf", 32);
  expect_error(engine.add_adapter(dir.path() / "wide.gguf"), ErrorCode::kInvalidArgument,
               "cannot be used as an adapter");
}

/// One lane, and answers of the base without end, each longer than the other so that they never end together: the
/// adapter has its turn after its wait, which here is none.
TEST(Engine, AnAdapterWaitsNoLongerThanItsBoundHoweverBusyTheOthersAre) {
  TemporaryDirectory dir("engine");
  EngineOptions options = exact();
  options.lanes = 1;
  options.adapter_wait = std::chrono::milliseconds(0);
  Engine engine = Engine::load(tiny_llama(), options).value();
  testing::write_tiny_adapter(dir.path() / "adapter.gguf", 64, "", 0.2, 1);
  const AdapterId adapter = engine.add_adapter(dir.path() / "adapter.gguf").value();
  const auto waiting = std::make_shared<Heard>();
  constexpr int kClients = 4, kMostAnswers = 60;
  std::atomic<bool> heard{false};
  std::atomic<int> answers{0}, begun{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&, i] {
      for (int n = 0; n < kMostAnswers && !heard; ++n) {
        EngineRequest request = ask(some_tokens(20, static_cast<std::uint64_t>(i)), 40 + 7 * i);
        request.sampling.ignore_end = true;
        const auto mine = std::make_shared<Heard>();
        engine.submit(std::move(request), mine).value();
        if (n == 0) {
          mine->wait_for_tokens(1);
          ++begun;
        }
        EXPECT_TRUE(mine->wait()[0].end);
        ++answers;
      }
    });
  }
  while (begun < kClients) std::this_thread::yield();
  EngineRequest request = ask(some_tokens(20, 9), 2);
  request.adapter = adapter;
  engine.submit(std::move(request), waiting).value();
  EXPECT_TRUE(waiting->wait()[0].end);
  const int meanwhile = answers;
  heard = true;
  for (std::thread& client : clients) client.join();
  EXPECT_LE(meanwhile, 2 * kClients) << "those that ran, and at most one more each";
}

TEST(Engine, NothingIsKeptOfAnAdapterThatWasRemoved) {
  TemporaryDirectory dir("engine");
  EngineOptions options = exact();
  options.lanes = 1;
  options.cache_bytes = 1024 * 2 * 2 * 32 * 4;  // 1,024 tokens: the second prompt needs the first one's room
  Engine engine = Engine::load(tiny_llama(), options).value();
  testing::write_tiny_adapter(dir.path() / "adapter.gguf");
  for (const bool removed : {true, false}) {
    EngineRequest request = ask(some_tokens(600), 2);
    request.adapter = engine.add_adapter(dir.path() / "adapter.gguf").value();
    answer(engine, request);
    if (removed) engine.remove_adapter(request.adapter);
    answer(engine, ask(some_tokens(900, 5), 2));
    EXPECT_EQ(engine.stats().kept_bytes > 0, !removed);
  }
}

TEST(Engine, AdaptersAreCheckedAgainstTheModelThatIsLoaded) {
  TemporaryDirectory dir("engine");
  std::filesystem::copy_file(tiny_llama(), dir.path() / "base.gguf");
  Engine engine =
      Engine::load(dir.path() / "base.gguf", {.threads = 1, .cache_bytes = std::uint64_t{16} << 20}).value();
  write_file_atomic(dir.path() / "base.gguf", "another file by now").value();
  testing::write_tiny_adapter(dir.path() / "fits.gguf");
  testing::write_tiny_adapter(dir.path() / "wide.gguf", 32);
  EXPECT_TRUE(engine.add_adapter(dir.path() / "fits.gguf"));
  expect_error(engine.add_adapter(dir.path() / "wide.gguf"), ErrorCode::kInvalidArgument,
               "cannot be used as an adapter of base.gguf: its matrices for blk.0.attn_q.weight have another shape");
}

/// llama.cpp ends the process over these: the first two when it loads them, the third at the first token.
TEST(Engine, HostileAdaptersAreErrors) {
  TemporaryDirectory dir("engine");
  Engine engine = Engine::load(tiny_llama(), {.threads = 1, .cache_bytes = std::uint64_t{16} << 20}).value();
  const auto refuses = [&](const std::string& key, const GgufValue& value, std::vector<std::uint64_t> a,
                           std::vector<std::uint64_t> b, const std::string& weight, const std::string& part) {
    GgufWriter writer;
    writer.set("general.architecture", GgufValue::string("llama"));
    writer.set("general.type", GgufValue::string("adapter"));
    writer.set("adapter.type", GgufValue::string("lora"));
    writer.set("adapter.lora.alpha", GgufValue::f32(8));
    writer.set(key, value);
    const auto add = [&](const std::string& name, std::vector<std::uint64_t> shape) {
      const std::size_t count = shape[0] * shape[1];
      writer.add(name, TensorType::kF32, std::move(shape),
                 [count]() -> Result<std::vector<float>> { return std::vector<float>(count, 0.1f); });
    };
    add(weight + ".lora_a", std::move(a));
    add(weight + ".lora_b", std::move(b));
    writer.write(dir.path() / "hostile.gguf").value();
    expect_error(engine.add_adapter(dir.path() / "hostile.gguf"), ErrorCode::kInvalidArgument, part);
  };
  const std::string q = "blk.0.attn_q.weight";
  refuses("adapter.lora.alpha", GgufValue::u32(8), {64, 4}, {4, 64}, q, "adapter.lora.alpha");
  refuses("general.type", GgufValue::u32(8), {64, 4}, {4, 64}, q, "general.type");
  const auto words = static_cast<std::uint64_t>(engine.vocabulary());
  refuses("a", GgufValue::u32(1), {4, words}, {4, 64}, "token_embd.weight", "the words' vectors");
}

TEST(Engine, SoftPromptsStandBeforeEveryPrompt) {
  TemporaryDirectory dir("engine");
  testing::write_soft_prompt(dir.path() / "soft.safetensors");
  Engine engine = Engine::load(tiny_llama(), exact()).value();
  const AdapterId id = engine.add_soft_prompt(dir.path() / "soft.safetensors").value();
  EXPECT_EQ(engine.soft_tokens(id), 7);
  const TokenList prompt = some_tokens(90);
  const TokenList expected =
      testing::ReferenceDecoder(tiny_llama(), dir.path() / "soft.safetensors").answer(prompt, 12).tokens;
  EngineRequest request = ask(prompt);
  request.adapter = id;
  EXPECT_EQ(answer(engine, request).tokens, expected);
  const Heard::Choice again = answer(engine, request);
  EXPECT_EQ(again.tokens, expected);
  EXPECT_EQ(again.prompt.cached, 89u);
  EXPECT_NE(answer(engine, ask(prompt)).tokens, expected);
}

TEST(Engine, ASoftPromptThatFillsTheContextIsRefused) {
  TemporaryDirectory dir("engine");
  testing::write_soft_prompt(dir.path() / "soft.safetensors");
  EngineOptions options = exact();
  options.max_context = 7;
  Engine full = Engine::load(tiny_llama(), options).value();
  expect_error(full.add_soft_prompt(dir.path() / "soft.safetensors"), ErrorCode::kInvalidArgument,
               "expected fewer than 7 tokens, got 7");
  options.max_context = 9;
  Engine engine = Engine::load(tiny_llama(), options).value();
  EngineRequest request = ask(some_tokens(1));
  request.adapter = engine.add_soft_prompt(dir.path() / "soft.safetensors").value();
  EXPECT_EQ(answer(engine, request).tokens.size(), 1u);
  request.prompt = some_tokens(2);
  expect_error(engine.submit(request, std::make_shared<Heard>()), ErrorCode::kInvalidArgument, "the model reads 2");
}

TEST(Engine, ASoftPromptThatFillsTheCacheLeavesNoRoom) {
  TemporaryDirectory dir("engine");
  testing::write_soft_prompt(dir.path() / "soft.safetensors", 300);
  EngineOptions options = exact();
  options.lanes = 1;
  options.cache_bytes = 256 * 2 * 2 * 32 * 4;  // of 256 tokens
  Engine engine = Engine::load(tiny_llama(), options).value();
  EngineRequest request = ask(some_tokens(5));
  request.adapter = engine.add_soft_prompt(dir.path() / "soft.safetensors").value();
  for (const bool alone : {false, true}) {
    request.invariant = alone;
    const auto refused = engine.submit(request, std::make_shared<Heard>());
    expect_error(refused, ErrorCode::kInvalidArgument, "the model reads 0");
    EXPECT_EQ(refused.error().hint, "give the cache more memory: it holds 256 tokens, and the soft prompt has 300");
  }
}

TEST(Engine, PromptLogprobsAreThoseOfTheModel) {
  Engine engine = Engine::load(tiny_llama(), exact()).value();
  const TokenList prompt = some_tokens(150);
  EngineRequest request = ask(prompt);
  request.only_prompt = true;
  request.prompt_logprobs = 2;
  const Heard::Choice got = answer(engine, request);
  const std::vector<double> losses = testing::ReferenceDecoder(tiny_llama()).losses(prompt);
  ASSERT_EQ(got.prompt.logprobs.size(), losses.size());
  for (std::size_t i = 0; i < losses.size(); ++i) {
    EXPECT_NEAR(-got.prompt.logprobs[i].logprob, losses[i], 1e-4) << i;
    ASSERT_EQ(got.prompt.logprobs[i].top.size(), 2u);
    EXPECT_GE(got.prompt.logprobs[i].top[0].logprob, got.prompt.logprobs[i].top[1].logprob);
  }
  EXPECT_TRUE(got.tokens.empty());
}

TEST(Engine, LogprobsBeginWhereAskedAndWhatIsBeforeMayBeCached) {
  EngineOptions options = exact();
  options.lanes = 1;
  Engine engine = Engine::load(tiny_llama(), options).value();
  const TokenList prompt = some_tokens(900);  // more logits than a step computes
  const std::vector<double> losses = testing::ReferenceDecoder(tiny_llama()).losses(prompt);
  EngineRequest request = ask(prompt);
  request.only_prompt = true;
  request.prompt_logprobs = 0;
  const auto tells = [&](std::size_t from, std::size_t cached) {
    request.logprobs_from = from;
    std::vector<std::shared_ptr<Heard>> heard;  // two at once share what a step may compute
    for (int i = 0; i < 2; ++i) engine.submit(request, heard.emplace_back(std::make_shared<Heard>())).value();
    EXPECT_EQ(heard[0]->wait()[0].prompt.cached, cached);
    for (const auto& one : heard) {
      const auto& logprobs = one->wait()[0].prompt.logprobs;
      ASSERT_EQ(logprobs.size(), prompt.size() - std::max<std::size_t>(1, from));
      for (std::size_t i = 0; i < logprobs.size(); ++i)
        EXPECT_NEAR(-logprobs[i].logprob, losses[losses.size() - logprobs.size() + i], 1e-4) << from << " " << i;
    }
  };
  tells(1, 0);
  tells(0, 0);
  tells(300, 299);
  tells(899, 898);
  request.logprobs_from = 900;  // none
  EXPECT_TRUE(answer(engine, request).prompt.logprobs.empty());
}

TEST(Engine, WhatIsSubmittedUnderAHoldBeginsTogether) {
  EngineOptions options = exact();
  options.lanes = 1;
  std::mutex mutex;
  std::vector<std::size_t> counts;  // of an answer's tokens, in the order in which they were told
  Engine engine = Engine::load(tiny_llama(), options).value();
  std::vector<std::shared_ptr<Heard>> heard;
  {
    const Engine::Hold hold(engine);
    for (std::uint64_t i = 0; i < 5; ++i) {
      heard.push_back(std::make_shared<Heard>());
      heard.back()->on_token = [&](const Heard::Choice& choice) {
        const std::lock_guard lock(mutex);
        counts.push_back(choice.tokens.size());
      };
      EngineRequest request = ask(some_tokens(30, i), 4);
      request.sampling.ignore_end = true;
      engine.submit(request, heard.back()).value();
    }
    EXPECT_EQ(engine.stats().waiting, 5);
    EXPECT_EQ(engine.stats().running, 0);
  }
  for (const auto& one : heard) one->wait();
  ASSERT_EQ(counts.size(), 20u);
  for (std::size_t i = 0; i < counts.size(); ++i) EXPECT_EQ(counts[i], i / 5 + 1);
}

/// Stops the lane that tells it a token, until it is let go.
class Stopper final : public AnswerListener {
 public:
  void on_prompt(int, const PromptRead&) override {}
  void on_text(int, std::string_view, std::span<const SampledToken>) override {
    if (stopped_.exchange(true)) return;
    reached_.set_value();
    go_.get_future().wait();
  }
  void on_end(int, const AnswerEnd&) override { ended_.set_value(); }
  void on_error(int, const Error&) override { ended_.set_value(); }
  void wait_until_stopped() { reached_.get_future().wait(); }
  void go() {
    go_.set_value();
    ended_.get_future().wait();
  }

 private:
  std::atomic<bool> stopped_{false};
  std::promise<void> reached_, go_, ended_;
};

TEST(Engine, TheHeartbeatIsOfTheLaneThatHasBeenAtItsStepTheLongest) {
  EngineOptions options = exact();
  options.share = std::make_shared<ComputeShare>(2);
  ComputeShare::Busy company(*options.share);  // so that a lane takes half of the cores
  company.set(true);
  Engine engine = Engine::load(tiny_llama(), options).value();
  EXPECT_FALSE(engine.stats().computing_since.has_value());
  answer(engine, ask(some_tokens(20), 4));
  const auto idle = [&] { return !engine.stats().computing_since.has_value(); };
  while (!idle()) std::this_thread::yield();
  const SteadyTime before = std::chrono::steady_clock::now();  // what comes after being idle begins anew
  const auto stopper = std::make_shared<Stopper>();
  engine.submit(ask(some_tokens(20, 5), 8), stopper).value();
  stopper->wait_until_stopped();
  const auto stopped = engine.stats().computing_since;
  ASSERT_TRUE(stopped.has_value());
  EXPECT_GE(*stopped, before);
  for (std::uint64_t i = 0; i < 3; ++i) {
    answer(engine, ask(some_tokens(20, 6 + i), 4));  // the other lane's
    EXPECT_EQ(engine.stats().computing_since, stopped) << "steps of others hide nothing";
  }
  stopper->go();
  while (!idle()) std::this_thread::yield();
}

TEST(Engine, WhoWaitsForAnotherLanesBeginningMayGo) {
  Engine engine = Engine::load(tiny_llama(), exact()).value();
  const TokenList common = some_tokens(200);
  const auto stopper = std::make_shared<Stopper>();
  engine.submit(ask(joined(common, some_tokens(5, 5))), stopper).value();
  stopper->wait_until_stopped();  // in its lane's first step: what comes now waits for the step's end
  const auto gone = std::make_shared<Heard>(), late = std::make_shared<Heard>(), third = std::make_shared<Heard>();
  const auto ticket = engine.submit(ask(joined(common, some_tokens(5, 6))), gone).value();
  while (engine.stats().steps == 0) std::this_thread::yield();  // the other lane has seen that it must wait
  EXPECT_EQ(engine.stats().running, 2);
  ticket->cancel();
  EXPECT_EQ(error_of(*gone), "the request was cancelled");
  EXPECT_EQ(engine.stats().running, 1);
  EngineRequest request = ask(joined(common, some_tokens(5, 7)));
  request.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
  engine.submit(request, late).value();
  EXPECT_EQ(error_of(*late), "the request took longer than its time-out");
  request.deadline.reset();
  engine.submit(request, third).value();
  stopper->go();
  EXPECT_EQ(third->wait()[0].prompt.cached, common.size()) << "who stays gets it";
}

/// One lane, for one answer at a time.
EngineOptions one_place() {
  EngineOptions options = exact();
  options.lanes = 1;
  options.lane_sequences = 1;
  return options;
}

TEST(Engine, WhatWaitsEndsByItselfThoughNoLaneEndsItsStep) {
  Engine engine = Engine::load(tiny_llama(), one_place()).value();
  const auto stopper = std::make_shared<Stopper>();
  engine.submit(ask(some_tokens(20)), stopper).value();
  stopper->wait_until_stopped();
  const auto now = [] { return std::chrono::steady_clock::now(); };
  const auto submit = [&](const std::shared_ptr<Heard>& heard, SteadyTime deadline, int choices = 1) {
    EngineRequest request = ask(some_tokens(20, 5));
    request.deadline = deadline;
    request.choices = choices;
    return engine.submit(request, heard).value();
  };
  const auto patient = std::make_shared<Heard>(), late = std::make_shared<Heard>(2), later = std::make_shared<Heard>(),
             last = std::make_shared<Heard>();
  const auto ticket = submit(patient, now() + std::chrono::hours(1));
  submit(late, now() + std::chrono::milliseconds(20), 2);  // earlier than any that is known
  EXPECT_EQ(error_of(*late, 0), "the request took longer than its time-out");
  EXPECT_EQ(error_of(*late, 1), "the request took longer than its time-out");
  submit(later, now() + std::chrono::milliseconds(20));
  EXPECT_EQ(error_of(*later), "the request took longer than its time-out");
  EXPECT_EQ(engine.stats().waiting, 1);
  ticket->cancel();
  EXPECT_EQ(error_of(*patient), "the request was cancelled");
  EXPECT_EQ(engine.stats().waiting, 0);
  EXPECT_EQ(engine.stats().waiting_tokens, 0u);
  EXPECT_EQ(engine.stats().failed, 4u);
  EXPECT_EQ(engine.stats().running, 1);
  submit(last, now() + std::chrono::hours(1));
  stopper->go();
  EXPECT_TRUE(last->wait()[0].end.has_value()) << "who is not late gets an answer";
}

TEST(Engine, WhatWasPutBackIntoTheQueueEndsByItselfToo) {
  EngineOptions options = exact();
  options.lanes = 1;
  options.lane_sequences = 2;
  options.cache_bytes = 256 * 2 * 2 * 32 * 4;  // 256 tokens: not both answers
  options.kept_bytes = 0;
  std::promise<void> reached, go;
  Engine engine = Engine::load(tiny_llama(), options).value();
  const auto first = std::make_shared<Heard>(), second = std::make_shared<Heard>(), third = std::make_shared<Heard>();
  first->on_token = [&](const Heard::Choice& choice) {
    if (choice.tokens.size() != 60) return;  // the second has lost its place after about 28
    reached.set_value();
    go.get_future().wait();
  };
  EngineRequest request = ask(some_tokens(100), 140);
  request.sampling.ignore_end = true;
  {
    const Engine::Hold hold(engine);
    engine.submit(request, first).value();
    request.prompt = some_tokens(100, 5);
    request.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
    engine.submit(request, second).value();
  }
  second->wait_for_tokens(1);
  engine.submit(request, third).value()->cancel();
  EXPECT_EQ(error_of(*third), "the request was cancelled") << "now nobody watches the second one's time";
  reached.get_future().wait();
  EXPECT_EQ(error_of(*second), "the request took longer than its time-out");
  go.set_value();
  EXPECT_TRUE(first->wait()[0].end.has_value());
}

/// Once it is closed, who loads an adapter stands still in llama.cpp, and so does who needs its list of adapters: as in
/// a step that takes long. No engine may live when it is made or ends.
class AdapterGate {
 public:
  AdapterGate() {
    init_llama().value();  // which sets the log, once
    llama_log_get(&log_, &user_data_);
    llama_log_set(hear, this);
  }
  AdapterGate(const AdapterGate&) = delete;
  AdapterGate& operator=(const AdapterGate&) = delete;
  ~AdapterGate() { llama_log_set(log_, user_data_); }
  void close() { closed_ = true; }
  void wait_until_reached() { reached_.get_future().wait(); }
  void open() { open_.set_value(); }

 private:
  static void hear(ggml_log_level level, const char* text, void* self) {
    auto& gate = *static_cast<AdapterGate*>(self);
    gate.log_(level, text, gate.user_data_);
    if (std::string_view(text).find("loading lora adapter") == std::string_view::npos) return;
    if (!gate.closed_.exchange(false)) return;
    gate.reached_.set_value();
    gate.open_.get_future().wait();
  }
  ggml_log_callback log_ = nullptr;
  void* user_data_ = nullptr;
  std::atomic<bool> closed_{false};
  std::promise<void> reached_, open_;
};

TEST(Engine, NobodyWaitsForAStepToCancelOrToRemoveAnAdapter) {
  TemporaryDirectory dir("engine");
  testing::write_tiny_adapter(dir.path() / "adapter.gguf");
  AdapterGate gate;
  Engine engine = Engine::load(tiny_llama(), one_place()).value();
  const AdapterId removed = engine.add_adapter(dir.path() / "adapter.gguf").value();
  const auto stopper = std::make_shared<Stopper>();
  engine.submit(ask(some_tokens(20)), stopper).value();
  stopper->wait_until_stopped();
  const auto heard = std::make_shared<Heard>();
  const auto ticket = engine.submit(ask(some_tokens(20, 5)), heard).value();
  gate.close();
  auto loading = std::async(std::launch::async, [&] { return engine.add_adapter(dir.path() / "adapter.gguf"); });
  gate.wait_until_reached();
  auto removing = std::async(std::launch::async, [&] { engine.remove_adapter(removed); });
  constexpr std::chrono::seconds kLong{60};
  EXPECT_EQ(removing.wait_for(kLong), std::future_status::ready);
  auto cancelling = std::async(std::launch::async, [&] { ticket->cancel(); });
  EXPECT_EQ(cancelling.wait_for(kLong), std::future_status::ready);
  auto asking = std::async(std::launch::async, [&] { return engine.stats().running; });
  EXPECT_EQ(asking.wait_for(kLong), std::future_status::ready) << "the lock is free";
  gate.open();
  EXPECT_EQ(error_of(*heard), "the request was cancelled");
  EXPECT_TRUE(loading.get());
  EngineRequest request = ask(some_tokens(20, 6));
  request.adapter = removed;
  expect_error(engine.submit(request, heard), ErrorCode::kNotFound, "removed");
  stopper->go();
}

TEST(Engine, ATicketOutlivesItsEngine) {
  std::shared_ptr<EngineTicket> ticket;
  const auto heard = std::make_shared<Heard>();
  {
    Engine engine = Engine::load(tiny_llama(), exact()).value();
    ticket = engine.submit(ask(some_tokens(20)), heard).value();
    heard->wait();
  }
  ticket->cancel();
  EXPECT_TRUE(ticket->cancelled());
}

TEST(Engine, WholeAnswersAreNeverPutBack) {
  testing::ReferenceDecoder reference(tiny_llama());
  EngineOptions options = exact();
  options.lanes = 1;
  options.cache_bytes = 1;  // raised to one text of 2,048 tokens
  options.kept_bytes = 0;
  options.whole_answers = true;
  std::mutex mutex;
  int running = 0, most = 0;
  Engine engine = Engine::load(tiny_llama(), options).value();
  std::vector<std::shared_ptr<Heard>> heard;
  for (std::uint64_t i = 0; i < 8; ++i) {
    heard.push_back(std::make_shared<Heard>());
    heard.back()->on_token = [&](const Heard::Choice& choice) {
      const std::lock_guard lock(mutex);
      if (choice.tokens.size() == 1) most = std::max(most, ++running);
      if (choice.tokens.size() == 100) --running;
    };
    EngineRequest request = ask(some_tokens(500, i), 100);
    request.sampling.ignore_end = true;
    engine.submit(request, heard.back()).value();
  }
  for (std::uint64_t i = 0; i < 8; ++i)
    EXPECT_EQ(heard[i]->wait()[0].tokens, reference.answer(some_tokens(500, i), 100, true).tokens) << i;
  EXPECT_EQ(most, 3);
  EXPECT_EQ(engine.stats().preempted, 0u);
  EXPECT_EQ(answer(engine, ask(some_tokens(2047))).tokens.size(), 1u);
}

TEST(Engine, OurAttentionIsLlamaCppsOverSixteenBitKeysAndValues) {
  Engine engine = Engine::load(tiny_llama(), {.threads = 1, .lanes = 1}).value();
  const TokenList prompt = some_tokens(150);
  EngineRequest request = ask(prompt);
  request.only_prompt = true;
  request.prompt_logprobs = 0;
  const Heard::Choice got = answer(engine, request);
  const std::vector<double> losses = testing::ReferenceDecoder(tiny_llama(), {}, /*f32=*/false).losses(prompt);
  ASSERT_EQ(got.prompt.logprobs.size(), losses.size());
  for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(-got.prompt.logprobs[i].logprob, losses[i], 5e-3) << i;
}

TEST(Engine, ChoicesDifferAndSeedsRepeat) {
  Engine engine = Engine::load(tiny_llama(), exact()).value();
  EngineRequest request = ask(some_tokens(30));
  request.choices = 4;
  request.sampling.temperature = 1;
  const auto draw = [&](std::uint64_t seed) {
    request.sampling.seed = seed;
    const auto heard = std::make_shared<Heard>(4);
    engine.submit(request, heard).value();
    std::vector<TokenList> out;
    for (const Heard::Choice& choice : heard->wait()) out.push_back(choice.tokens);
    return out;
  };
  const auto first = draw(7);
  EXPECT_EQ(first, draw(7));
  EXPECT_NE(first, draw(8));
  EXPECT_NE(first[0], first[1]);
  EXPECT_NE(first[2], first[3]);
}

/// With quantized weights the shape of a batch changes the numbers; an invariant request's it does not.
TEST(Engine, InvariantRequestsAnswerTheSameInCompany) {
  EngineOptions options;
  options.threads = 2;
  options.cache_bytes = std::uint64_t{256} << 20;
  Engine engine = Engine::load(testing::smollm_file(), options).value();
  EngineRequest request = ask(some_tokens(70), 16);
  request.invariant = true;
  request.sampling.top_logprobs = 3;
  request.sampling.temperature = 1.5;  // near ties decide
  const Heard::Choice first = answer(engine, request);
  std::vector<std::shared_ptr<Heard>> company;
  for (int i = 0; i < 6; ++i) {
    company.push_back(std::make_shared<Heard>());
    engine.submit(ask(some_tokens(40 + static_cast<std::size_t>(i), static_cast<std::uint64_t>(i)), 24), company.back())
        .value();
  }
  const Heard::Choice second = answer(engine, request);
  for (const auto& other : company) other->wait();
  EXPECT_EQ(first.tokens, second.tokens);
  ASSERT_EQ(first.sampled.size(), second.sampled.size());
  for (std::size_t i = 0; i < first.sampled.size(); ++i) EXPECT_EQ(first.sampled[i].logprob, second.sampled[i].logprob);
}

TEST(Engine, ASeedRepeatsWhereNothingElseRuns) {
  EngineOptions options;
  options.threads = 2;
  options.cache_bytes = std::uint64_t{256} << 20;
  Engine engine = Engine::load(testing::smollm_file(), options).value();
  EngineRequest request = ask(some_tokens(70), 16);
  request.repeatable = true;
  request.sampling.top_logprobs = 1;
  request.sampling.temperature = 1.5;
  const Heard::Choice first = answer(engine, request);
  answer(engine, ask(request.prompt, 8));  // now the cache has it
  const Heard::Choice second = answer(engine, request);
  ASSERT_EQ(first.tokens, second.tokens);
  for (std::size_t i = 0; i < first.sampled.size(); ++i) EXPECT_EQ(first.sampled[i].logprob, second.sampled[i].logprob);
}

TEST(Engine, TellsWhatANewcomerWouldWaitFor) {
  EngineOptions options = exact();
  options.lane_sequences = 2;
  options.lanes = 1;
  Engine engine = Engine::load(tiny_llama(), options).value();
  EXPECT_EQ(engine.expected_wait("flood", 0, 0, false).seconds, 0) << "an idle engine has room";
  std::vector<std::shared_ptr<Heard>> heard;
  std::vector<std::shared_ptr<EngineTicket>> tickets;
  for (int i = 0; i < 200; ++i) {
    EngineRequest request;
    request.prompt = some_tokens(20, static_cast<std::uint64_t>(i));
    request.sampling.max_tokens = 1500;
    request.sampling.ignore_end = true;
    request.expected_answer = 380;
    request.client = "flood";
    heard.push_back(std::make_shared<Heard>());
    tickets.push_back(engine.submit(std::move(request), heard.back()).value());
  }
  EXPECT_EQ(engine.stats().waiting_tokens, std::uint64_t{400} * static_cast<std::uint64_t>(engine.stats().waiting));
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  while (engine.expected_wait("flood", 0, 0, false).seconds == 0 && std::chrono::steady_clock::now() < end)
    std::this_thread::yield();
  const ExpectedWait flood = engine.expected_wait("flood", 0, 0, false);
  ASSERT_GT(flood.seconds, 0);
  EXPECT_GT(flood.tokens_per_second, 0);
  EXPECT_EQ(flood.own_seconds, flood.seconds);
  EXPECT_EQ(engine.expected_wait("another", 0, 0, false).seconds, 0) << "its turn is next";
  EXPECT_EQ(engine.expected_wait("flood", 1, 0, false).seconds, 0) << "so is that of a higher priority";
  EXPECT_EQ(engine.expected_wait("flood", 0, 0, true).seconds, 0) << "what is computed alone has a place of its own";
  EXPECT_GT(engine.stats().waiting_seconds, 0);
  for (const auto& ticket : tickets) ticket->cancel();
  for (const auto& one : heard) one->wait();
  EXPECT_EQ(engine.expected_wait("flood", 0, 0, false).seconds, 0);
  EXPECT_EQ(engine.stats().waiting_seconds, 0);
  EXPECT_EQ(engine.stats().waiting_tokens, 0u);
}

TEST(Engine, Refusals) {
  EngineOptions options = exact();
  options.queue.requests = 2;
  options.lanes = 1;
  options.lane_sequences = 1;
  Engine engine = Engine::load(tiny_llama(), options).value();
  const auto nobody = std::make_shared<Heard>();
  expect_error(engine.submit(ask({}), nobody), ErrorCode::kInvalidArgument, "the prompt is empty");
  expect_error(engine.submit(ask({1, 1 << 20}), nobody), ErrorCode::kInvalidArgument, "is not one of");
  expect_error(engine.submit(ask(some_tokens(2048)), nobody), ErrorCode::kInvalidArgument, "the model reads 2048");
  EngineRequest long_one = ask(some_tokens(20), 2000);
  long_one.sampling.ignore_end = true;
  const auto running = std::make_shared<Heard>();
  const auto ticket = engine.submit(long_one, running).value();
  running->wait_for_tokens(1);
  const auto third = std::make_shared<Heard>(), fourth = std::make_shared<Heard>();
  engine.submit(ask(some_tokens(5)), third).value();
  engine.submit(ask(some_tokens(5)), fourth).value();
  expect_error(engine.submit(ask(some_tokens(5)), nobody), ErrorCode::kUnavailable, "the queue is full");
  ticket->cancel();
  EXPECT_TRUE(third->wait()[0].end.has_value());
  EXPECT_TRUE(fourth->wait()[0].end.has_value());
  expect_error(Engine::load(testing::minilm_gguf(ImportType::kF16)), ErrorCode::kUnavailable, "decoder-only");
}

TEST(Engine, StoppingEndsWhatRuns) {
  const auto heard = std::make_shared<Heard>(3);
  {
    Engine engine = Engine::load(tiny_llama(), exact()).value();
    EngineRequest request = ask(some_tokens(20), 2000);
    request.sampling.ignore_end = true;
    request.choices = 3;
    engine.submit(request, heard).value();
    heard->wait_for_tokens(1);
  }
  for (const Heard::Choice& choice : heard->wait()) {
    ASSERT_TRUE(choice.error.has_value());
    EXPECT_EQ(choice.error->code, ErrorCode::kCancelled);
  }
}

TEST(Engine, BottlenecksNeedTheProgramThatComputesThem) {
  EngineOptions options = exact();
  options.worker = {"", "bottlenecks.safetensors"};
  expect_error(Engine::load(tiny_llama(), options), ErrorCode::kUnavailable,
               "bottlenecks.safetensors needs tailor-tune");
  options.worker.program = "/bin/false";  // ends at once
  expect_error(Engine::load(tiny_llama(), options), ErrorCode::kUnavailable, "has ended");
}

}  // namespace
}  // namespace tailor
