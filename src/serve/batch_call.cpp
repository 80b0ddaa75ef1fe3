#include "serve/batch_call.h"

#include <atomic>
#include <mutex>
#include <utility>

#include "store/random_id.h"

namespace tailor {
namespace {

HttpResponse dropped(const RequestRecord& /*record*/) {
  return error_response({500, "server_error", "", "the request was dropped inside the server", ""});
}

/// Keeps an answer for who asked. A stream is collected, though no request of a batch may ask for one.
class Collector final : public HttpResponder {
 public:
  explicit Collector(std::function<void(BatchReply)> done) : done_(std::move(done)) {}
  ~Collector() override { tell(); }

  void send(HttpResponse response) override {
    reply_.status = response.status;
    reply_.body = std::move(response.body);
    if (const std::string* seconds = response.headers.find("Retry-After"))
      reply_.retry_after_s = std::atoi(seconds->c_str());
    const std::string* retry = response.headers.find("x-should-retry");
    reply_.hopeless = retry != nullptr && *retry == "false";
    tell();
  }
  void send(std::shared_ptr<const PreparedResponse> response) override {
    send(HttpResponse{response->status(), {}, response->body()});
  }
  void begin_stream(int status, HttpHeaders /*headers*/) override { reply_.status = status; }
  bool write(std::string_view piece) override {
    if (gone()) return false;
    reply_.body += piece;
    return true;
  }
  void finish() override { tell(); }
  void set_keep_alive_comment(std::chrono::milliseconds /*interval*/) override {}
  void on_disconnect(std::function<void()> callback) override {
    {
      const std::lock_guard lock(mutex_);
      if (!gone_) {
        disconnected_ = std::move(callback);
        return;
      }
    }
    if (callback) callback();
  }
  bool gone() const override { return gone_; }

  void leave() {
    std::function<void()> callback;
    {
      const std::lock_guard lock(mutex_);
      if (gone_.exchange(true)) return;
      callback = std::exchange(disconnected_, {});
    }
    if (callback) callback();
  }

 private:
  /// Who answered holds this; what the callback holds is let go of with it.
  void tell() {
    if (told_.exchange(true)) return;
    {
      const std::lock_guard lock(mutex_);
      disconnected_ = {};
    }
    if (reply_.status == 0) reply_.status = 500;
    done_(std::move(reply_));
  }

  std::function<void(BatchReply)> done_;
  BatchReply reply_;  // by one thread at a time, as all of a handler's calls
  std::atomic<bool> told_{false}, gone_{false};
  std::mutex mutex_;
  std::function<void()> disconnected_;
};

class Call final : public BatchCall {
 public:
  Call(std::weak_ptr<Collector> collector, std::string request_id)
      : collector_(std::move(collector)), request_id_(std::move(request_id)) {}
  void cancel() override {
    if (const auto collector = collector_.lock()) collector->leave();
  }
  const std::string& request_id() const override { return request_id_; }

 private:
  std::weak_ptr<Collector> collector_;  // it ends with its request
  std::string request_id_;
};

}  // namespace

std::shared_ptr<BatchCall> ask(const BatchCallOptions& options, std::string body, Principal principal,
                               std::function<void(BatchReply)> done) {
  const auto collector = std::make_shared<Collector>(std::move(done));
  auto call = std::make_shared<ApiCall>();
  call->id = random_id("req-", 24);
  call->arrived = std::chrono::steady_clock::now();
  RequestRecord record;
  record.id = call->id;
  record.method = options.route->method;
  record.route = options.route;
  record.key_id = principal.key_id;
  record.batch_id = options.batch_id;
  record.bytes_in = body.size();
  record.began = std::chrono::system_clock::now();
  const auto watch = std::make_shared<RequestWatch>(options.observers, std::move(record), call->arrived);
  call->record = std::shared_ptr<RequestRecord>(watch, &watch->record);
  call->log = options.services->log;
  call->request.head.method = options.route->method;
  call->request.head.path = options.route->path;
  call->body_bytes = body.size();
  call->request.body = std::move(body);
  call->responder = RequestWatch::watch(collector, watch, dropped);
  call->principal = std::move(principal);
  auto out = std::make_shared<Call>(collector, call->id);
  try {
    options.route->handle(*options.services, call);
  } catch (const std::exception& e) {
    call->answer(api_error(Error{ErrorCode::kInternal, e.what(), ""}));
  }
  return out;
}

}  // namespace tailor
