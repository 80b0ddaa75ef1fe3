// XGrammar's log goes nowhere, and its checks throw: it runs inside a server and reads what clients send.
#include <stdexcept>
#include <string>

namespace xgrammar {

[[noreturn]] void LogFatalImpl(const std::string& file, int line, const std::string& message) {
  throw std::runtime_error(message + " [" + file.substr(file.rfind('/') + 1) + ":" + std::to_string(line) + "]");
}

void LogMessageImpl(const std::string&, int, int, const std::string&) {}

}  // namespace xgrammar
