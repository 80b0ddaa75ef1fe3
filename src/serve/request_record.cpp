#include "serve/request_record.h"

#include <utility>

#include "serve/http_file.h"

namespace tailor {
namespace {

std::int64_t nanoseconds_since(SteadyTime begin) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - begin).count();
}

/// What was answered is told before the client has it: whoever reads an answer finds it counted.
class WatchedResponder final : public HttpResponder {
 public:
  WatchedResponder(std::shared_ptr<HttpResponder> inner, std::shared_ptr<RequestWatch> watch,
                   HttpResponse (*if_dropped)(const RequestRecord&))
      : inner_(std::move(inner)), watch_(std::move(watch)), if_dropped_(if_dropped) {
    inner_->on_disconnect([w = watch_] { w->gone(); });
  }
  ~WatchedResponder() override {
    try {
      if (!answered_) WatchedResponder::send(if_dropped_(watch_->record));
      if (stream_status_ != 0) watch_->done(500);  // half of an answer; the first call counts
    } catch (...) {                                // no memory: the server answers by itself
    }
  }

  void send(HttpResponse response) override {
    if (!std::exchange(answered_, true)) {
      watch_->record.bytes_out = response.file ? response.file->size() : response.body.size();
      watch_->done(response.status);
    }
    inner_->send(std::move(response));
  }
  void send(std::shared_ptr<const PreparedResponse> response) override {
    if (!response) return;  // dropped, in the end
    if (!std::exchange(answered_, true)) {
      watch_->record.bytes_out = response->body().size();
      watch_->done(response->status());
    }
    inner_->send(std::move(response));
  }
  void begin_stream(int status, HttpHeaders headers) override {
    if (!std::exchange(answered_, true)) stream_status_ = status;
    inner_->begin_stream(status, std::move(headers));
  }
  bool write(std::string_view piece) override {
    if (!inner_->write(piece)) return false;
    watch_->record.bytes_out += piece.size();
    return true;
  }
  void finish() override {
    if (stream_status_ != 0) watch_->done(stream_status_);
    inner_->finish();
  }
  void set_keep_alive_comment(std::chrono::milliseconds interval) override { inner_->set_keep_alive_comment(interval); }
  void on_silence(std::chrono::milliseconds interval, std::function<void()> callback) override {
    inner_->on_silence(interval, std::move(callback));
  }
  void on_disconnect(std::function<void()> callback) override {
    inner_->on_disconnect([w = watch_, call = std::move(callback)] {
      w->gone();
      if (call) call();
    });
  }
  bool gone() const override { return inner_->gone(); }

 private:
  std::shared_ptr<HttpResponder> inner_;
  std::shared_ptr<RequestWatch> watch_;
  HttpResponse (*if_dropped_)(const RequestRecord&);
  bool answered_ = false;  // by one thread at a time, as all of a handler's calls
  int stream_status_ = 0;
};

}  // namespace

void tell(const RequestObservers& observers, const RequestRecord& record) {
  for (RequestObserver* observer : observers) observer->on_request(record);
}

RequestWatch::~RequestWatch() {
  if (gone_after_ns_.load() >= 0) done(kClientGone);
}

void RequestWatch::gone() {
  std::int64_t never = -1;
  gone_after_ns_.compare_exchange_strong(never, nanoseconds_since(arrived_));
}

void RequestWatch::done(int status) {
  if (told_.exchange(true)) return;
  const std::int64_t gone_after = gone_after_ns_.load();
  record.status = gone_after >= 0 ? kClientGone : status;
  record.seconds = static_cast<double>(gone_after >= 0 ? gone_after : nanoseconds_since(arrived_)) * 1e-9;
  tell(*observers_, record);
}

std::shared_ptr<HttpResponder> RequestWatch::watch(std::shared_ptr<HttpResponder> responder,
                                                   std::shared_ptr<RequestWatch> watch,
                                                   HttpResponse (*if_dropped)(const RequestRecord&)) {
  return std::make_shared<WatchedResponder>(std::move(responder), std::move(watch), if_dropped);
}

}  // namespace tailor
