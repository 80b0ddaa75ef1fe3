#include "serve/http_exchange.h"

#include <fmt/format.h>

namespace tailor {
namespace {

void append_chunk(std::string& out, std::string_view piece) {
  fmt::format_to(std::back_inserter(out), "{:x}\r\n", piece.size());
  out.append(piece).append("\r\n");
}

/// An exception has nowhere to go from here: the client is gone already.
void call(const std::function<void()>& callback) {
  try {
    if (callback) callback();
  } catch (...) {
  }
}

/// The handler's hold on an exchange.
class Responder final : public HttpResponder {
 public:
  explicit Responder(std::shared_ptr<HttpExchange> exchange) : exchange_(std::move(exchange)) {}
  ~Responder() override { exchange_->abandon(); }
  void send(HttpResponse response) override { exchange_->send(std::move(response)); }
  void send(std::shared_ptr<const PreparedResponse> response) override { exchange_->send(std::move(response)); }
  void begin_stream(int status, HttpHeaders headers) override { exchange_->begin_stream(status, std::move(headers)); }
  bool write(std::string_view piece) override { return exchange_->write(piece); }
  void finish() override { exchange_->finish(); }
  void set_keep_alive_comment(std::chrono::milliseconds interval) override {
    exchange_->set_keep_alive_comment(interval);
  }
  void on_silence(std::chrono::milliseconds interval, std::function<void()> callback) override {
    exchange_->on_silence(interval, std::move(callback));
  }
  void on_disconnect(std::function<void()> callback) override { exchange_->on_disconnect(std::move(callback)); }
  bool gone() const override { return exchange_->gone(); }

 private:
  std::shared_ptr<HttpExchange> exchange_;
};

}  // namespace

std::string frame_chunk(std::string_view piece) {
  std::string out;
  append_chunk(out, piece);
  return out;
}

std::shared_ptr<HttpResponder> make_responder(std::shared_ptr<HttpExchange> exchange) {
  return std::make_shared<Responder>(std::move(exchange));
}

/// Ends the critical section. One wake-up serves all that comes before the connection takes.
void HttpExchange::wake(std::unique_lock<std::mutex> lock) {
  if (std::exchange(wake_pending_, true)) return;
  const auto waker = waker_;
  lock.unlock();
  if (waker) waker->wake();
}

void HttpExchange::send(HttpResponse response) {
  std::unique_lock lock(mutex_);
  if (phase_ != Phase::kOpen) return;
  phase_ = Phase::kDone;
  next_.response = std::move(response);
  next_.finished = true;
  wake(std::move(lock));
}

void HttpExchange::send(std::shared_ptr<const PreparedResponse> response) {
  std::unique_lock lock(mutex_);
  if (phase_ != Phase::kOpen) return;
  phase_ = Phase::kDone;
  next_.unanswered = response == nullptr;
  next_.prepared = std::move(response);
  next_.finished = true;
  wake(std::move(lock));
}

void HttpExchange::begin_stream(int status, HttpHeaders headers) {
  std::unique_lock lock(mutex_);
  if (phase_ != Phase::kOpen) return;
  phase_ = Phase::kStream;
  next_.begin = StreamBegin{status, std::move(headers)};
  wake(std::move(lock));
}

bool HttpExchange::write(std::string_view piece) {
  std::unique_lock lock(mutex_);
  if (phase_ != Phase::kStream || next_.overrun) return false;
  if (piece.empty()) return true;
  if (next_.bytes.size() + unsent_ > buffer_limit_) {
    next_.overrun = true;
    wake(std::move(lock));
    return false;
  }
  if (chunked_) {
    append_chunk(next_.bytes, piece);
  } else {
    next_.bytes.append(piece);
  }
  wake(std::move(lock));
  return true;
}

void HttpExchange::finish() {
  std::unique_lock lock(mutex_);
  if (phase_ != Phase::kStream) return;
  phase_ = Phase::kDone;
  if (chunked_) next_.bytes += "0\r\n\r\n";
  next_.finished = true;
  wake(std::move(lock));
}

void HttpExchange::abandon() {
  std::unique_lock lock(mutex_);
  if (phase_ != Phase::kOpen && phase_ != Phase::kStream) return;
  (phase_ == Phase::kOpen ? next_.unanswered : next_.broken) = true;
  phase_ = Phase::kDone;
  next_.finished = true;
  wake(std::move(lock));
}

void HttpExchange::set_keep_alive_comment(std::chrono::milliseconds interval) {
  std::unique_lock lock(mutex_);
  next_.comment_interval = interval;
  wake(std::move(lock));
}

void HttpExchange::on_silence(std::chrono::milliseconds interval, std::function<void()> callback) {
  const std::lock_guard lock(mutex_);
  if (phase_ != Phase::kOpen) return;
  silent_ = std::move(callback);
  silent_at_ = std::chrono::steady_clock::now() + interval;
}

void HttpExchange::tick(std::chrono::steady_clock::time_point now) {
  std::function<void()> callback;  // called and destroyed without the lock, see take()
  {
    const std::lock_guard lock(mutex_);
    if (!silent_ || now < silent_at_) return;
    callback = std::exchange(silent_, nullptr);
    if (phase_ != Phase::kOpen) return;
  }
  call(callback);
}

void HttpExchange::on_disconnect(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (phase_ != Phase::kGone) {
      if (phase_ != Phase::kDone) disconnected_ = std::move(callback);
      return;
    }
  }
  call(callback);
}

bool HttpExchange::gone() const {
  const std::lock_guard lock(mutex_);
  return phase_ == Phase::kGone;
}

HttpExchange::Taken HttpExchange::take() {
  std::function<void()> unneeded, unneeded_too;  // destroyed without the lock: they may own anything
  const std::lock_guard lock(mutex_);
  wake_pending_ = false;
  Taken taken = std::move(next_);
  next_ = {};
  next_.comment_interval = taken.comment_interval;
  unsent_ += taken.bytes.size();  // until the connection tells
  if (phase_ == Phase::kDone) {
    unneeded = std::exchange(disconnected_, nullptr);
    unneeded_too = std::exchange(silent_, nullptr);
    waker_.reset();
  }
  return taken;
}

void HttpExchange::set_unsent(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  unsent_ = bytes;
}

bool HttpExchange::close() {
  std::function<void()> callback, silent;  // all destroyed without the lock, see take()
  Taken unseen;
  {
    const std::lock_guard lock(mutex_);
    waker_.reset();
    callback = std::exchange(disconnected_, nullptr);
    silent = std::exchange(silent_, nullptr);
    unseen = std::exchange(next_, {});
    if (phase_ == Phase::kDone || phase_ == Phase::kGone) return false;
    phase_ = Phase::kGone;
  }
  call(callback);
  return true;
}

}  // namespace tailor
