#pragma once
/// Where library code says things. The library never prints: it is handed a Logger&.

#include <string_view>

namespace tailor {

enum class LogLevel { kDebug, kInfo, kWarning };

class Logger {
 public:
  virtual ~Logger() = default;
  virtual void log(LogLevel level, std::string_view message) = 0;
  void debug(std::string_view m) { log(LogLevel::kDebug, m); }
  void info(std::string_view m) { log(LogLevel::kInfo, m); }
  void warning(std::string_view m) { log(LogLevel::kWarning, m); }
};

/// Says nothing.
class NullLogger final : public Logger {
 public:
  void log(LogLevel, std::string_view) override {}
};

}  // namespace tailor
