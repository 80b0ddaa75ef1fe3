#pragma once
/// A log that keeps what it is told.

#include <mutex>
#include <string>
#include <string_view>

#include "core/log.h"

namespace tailor::test {

class KeptLog final : public Logger {
 public:
  void log(LogLevel, std::string_view message) override {
    const std::lock_guard lock(mutex_);
    all_ += std::string(message) + "\n";
  }
  std::string all() {
    const std::lock_guard lock(mutex_);
    return all_;
  }

 private:
  std::mutex mutex_;
  std::string all_;
};

}  // namespace tailor::test
