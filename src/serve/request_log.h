#pragma once
/// The server's log: one JSON object a line, printable ASCII throughout, so that nothing a client sends can forge a
/// line or move a terminal's cursor. Never content, never keys.

#include "core/log.h"
#include "serve/log_sink.h"
#include "serve/request_record.h"

namespace tailor {

/// What the server says of itself. Threads: all.
class JsonLogger final : public Logger {
 public:
  JsonLogger(LogSink& sink, LogLevel least) : sink_(sink), least_(least) {}
  void log(LogLevel level, std::string_view message) override;

 private:
  LogSink& sink_;
  LogLevel least_;
};

struct RequestLogOptions {
  LogLevel least = LogLevel::kInfo;  // routes without a key (health), /metrics and requests of batches are kDebug,
                                     // status 500 and above kWarning
  bool addresses = true;             // of clients
};

/// A line for each request. Threads: all.
class RequestLog final : public RequestObserver {
 public:
  RequestLog(LogSink& sink, RequestLogOptions options) : sink_(sink), options_(options) {}
  void on_request(const RequestRecord& record) override;

 private:
  LogSink& sink_;
  RequestLogOptions options_;
};

}  // namespace tailor
