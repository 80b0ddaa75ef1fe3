#pragma once
/// A trainer that trains nothing.

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/files.h"
#include "infer/test_models.h"
#include "serve/fine_tuning.h"
#include "serve/test_server.h"

namespace tailor::test {

/// Takes files that say "good"; trains when it is let, into an adapter of the tiny model. What it keeps are the weights
/// of step 2 of 3.
class DoubleTuner final : public FineTuner {
 public:
  Status ready() const override {
    if (able.load()) return {};
    return Error{ErrorCode::kUnavailable, "nothing trains here", "build it"};
  }
  Result<std::string> check(const std::filesystem::path& file, const std::string& name) override {
    if (on_check) on_check();
    TAILOR_TRY(const std::string text, read_file(file));
    if (text.find("good") == std::string::npos)
      return Error{ErrorCode::kInvalidArgument, name + ":3: expected good, saw " + text.substr(0, 10), ""};
    return std::string("3 examples");
  }
  Result<FineTuned> train(const FineTuneSpec& spec, const FineTuneProgress& progress,
                          const CancelToken& cancel) override {
    {
      const std::lock_guard lock(mutex);
      specs.push_back(spec);
    }
    const Training here(training);
    const Json used{{"n_epochs", spec.epochs.value_or(3)},
                    {"batch_size", spec.batch_size.value_or(8)},
                    {"learning_rate_multiplier", spec.learning_rate_multiplier.value_or(2.5)}};
    progress.say("info", "reading " + spec.base.string());
    progress.begun(used);
    begun.set();
    if (on_begin) on_begin();
    progress.step(1, {{"train_loss", 2.5}});
    progress.estimate(60);
    while (!go.load() && !cancel.cancelled()) std::this_thread::yield();
    if (cancel.cancelled()) return Error{ErrorCode::kCancelled, "interrupted", ""};
    if (fails.load())
      return Error{ErrorCode::kIo, spec.run.string() + ": the disk is full", "beside " + spec.base.string()};
    progress.step(2, {{"train_loss", 2.25}, {"train_mean_token_accuracy", 0.5}});
    progress.step(2, {{"valid_loss", 1.5}, {"valid_mean_token_accuracy", 0.75}});
    progress.step(3, {{"valid_loss", 1.75}});
    std::filesystem::create_directories(spec.run / "package" / "adapter");
    tailor::testing::write_tiny_adapter(spec.run / "package" / "adapter" / "adapter.gguf", 64, "", 0.3);
    if (on_end) on_end();
    FineTuned out;
    out.package = spec.run / "package";
    out.step = 2;
    out.trained_tokens = 123;
    out.metrics = {{"valid_loss", 1.5}, {"valid_mean_token_accuracy", 0.75}};
    out.hyperparameters = used;
    return out;
  }
  std::atomic<bool> go{true}, fails{false}, able{true};
  std::function<void()> on_check, on_begin, on_end;  // on the threads of the jobs; they may throw
  std::atomic<int> training{0};                      // that have not ended
  Event begun;
  std::mutex mutex;
  std::vector<FineTuneSpec> specs;

 private:
  struct Training {
    explicit Training(std::atomic<int>& c) : count(c) { ++count; }
    Training(const Training&) = delete;
    Training& operator=(const Training&) = delete;
    ~Training() { --count; }
    std::atomic<int>& count;
  };
};

}  // namespace tailor::test
