#pragma once
/// A label package that answers when a test lets it.

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "serve/served_model.h"

namespace tailor::test {

/// Opens for one more batch of texts at a time, or for all. A test lets nobody wait behind it.
class Gate {
 public:
  struct Opened {
    std::shared_ptr<Gate> gate;
    ~Opened() { gate->open(kAll); }
  };
  void enter(std::size_t texts) {
    std::unique_lock lock(mutex_);
    most_ = std::max(most_, texts);
    changed_.wait(lock, [&] { return open_ > 0; });
    if (open_ != kAll) --open_;
  }
  void open(int times) {
    const std::lock_guard lock(mutex_);
    open_ = times;
    changed_.notify_all();
  }
  std::size_t most() {
    const std::lock_guard lock(mutex_);
    return most_;
  }
  static constexpr int kAll = 1 << 30;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int open_ = 0;
  std::size_t most_ = 0;
};

/// Says "a" of everything, when the gate lets it.
class GatedClassifier final : public Classifier {
 public:
  explicit GatedClassifier(std::shared_ptr<Gate> gate) : gate_(std::move(gate)) {}
  Result<Matrix> probabilities(std::span<const std::string> texts, const ProgressFn& /*progress*/,
                               const CancelToken& /*cancel*/) override {
    gate_->enter(texts.size());
    Matrix out(texts.size(), 2);
    for (std::size_t i = 0; i < texts.size(); ++i) out.row(i)[0] = 1;
    return out;
  }

 private:
  std::shared_ptr<Gate> gate_;
};

/// Serves one as "gated".
inline std::shared_ptr<LabelBackend> serve_gated(ModelRegistry& models, std::shared_ptr<Gate> gate,
                                                 BatcherOptions options = {}) {
  PackageManifest manifest;
  manifest.labels = {"a", "b"};
  auto labels = LabelBackend::make(manifest, std::make_unique<GatedClassifier>(std::move(gate)), false,
                                   std::make_shared<ComputeShare>(1), std::move(options));
  auto model = std::make_unique<ServedModel>();
  model->id = "gated";
  model->labels = labels;
  models.put(std::move(model));
  return labels;
}

}  // namespace tailor::test
