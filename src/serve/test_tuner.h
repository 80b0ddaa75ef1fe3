#pragma once
/// A trainer that trains nothing.

#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/files.h"
#include "infer/test_models.h"
#include "serve/fine_tuning.h"
#include "serve/test_server.h"

namespace tailor::test {

/// Takes files that say "good"; trains when it is let, into an adapter of the tiny model.
class DoubleTuner final : public FineTuner {
 public:
  Result<std::string> check(const std::filesystem::path& file, const std::string& name) override {
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
    begun.set();
    progress.step(1, {{"train_loss", 2.5}});
    progress.estimate(60);
    while (!go.load() && !cancel.cancelled()) std::this_thread::yield();
    if (cancel.cancelled()) return Error{ErrorCode::kCancelled, "interrupted", ""};
    if (fails.load()) return Error{ErrorCode::kIo, spec.run.string() + ": the disk is full", ""};
    progress.step(2, {{"valid_loss", 1.5}});
    std::filesystem::create_directories(spec.run / "package" / "adapter");
    tailor::testing::write_tiny_adapter(spec.run / "package" / "adapter" / "adapter.gguf", 64, "", 0.3);
    FineTuned out;
    out.package = spec.run / "package";
    out.steps = 2;
    out.trained_tokens = 123;
    out.figures = {{"valid_loss", 1.5}};
    return out;
  }
  std::atomic<bool> go{true}, fails{false};
  Event begun;
  std::mutex mutex;
  std::vector<FineTuneSpec> specs;
};

}  // namespace tailor::test
