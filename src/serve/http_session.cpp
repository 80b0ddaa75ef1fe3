#include "serve/http_session.h"

#include <algorithm>
#include <utility>

#include "serve/http_file.h"

namespace tailor {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kFirstRoom = 4 << 10;      // bytes; of a connection that sends small requests
constexpr std::size_t kBodyRoom = 64 << 10;      // of one that sends a body
constexpr std::size_t kFullOutput = 256 << 10;   // answers to requests sent ahead wait for the reader beyond this
constexpr std::size_t kReservedBody = 64 << 10;  // of a body that was only announced

class SessionWaker final : public HttpWaker {
 public:
  SessionWaker(std::weak_ptr<HttpSession> session, std::shared_ptr<HttpLoop> loop)
      : session_(std::move(session)), loop_(std::move(loop)) {}
  void wake() override {
    loop_->post([session = session_] {
      if (const auto held = session.lock()) held->on_wake();
    });
  }

 private:
  std::weak_ptr<HttpSession> session_;
  std::shared_ptr<HttpLoop> loop_;
};

}  // namespace

std::span<char> HttpInput::room(std::size_t capacity) {
  if (empty()) {
    begin_ = end_ = 0;
    if (data_.size() > capacity) std::vector<char>(kFirstRoom).swap(data_);
  } else if (begin_ > 0) {
    std::copy(data_.begin() + static_cast<std::ptrdiff_t>(begin_), data_.begin() + static_cast<std::ptrdiff_t>(end_),
              data_.begin());
    end_ -= begin_;
    begin_ = 0;
  }
  if (end_ >= capacity) return {};
  if (end_ == data_.size()) data_.resize(std::min(capacity, std::max(kFirstRoom, 4 * data_.size())));
  return std::span(data_).subspan(end_, std::min(data_.size(), capacity) - end_);
}

HttpSession::HttpSession(std::shared_ptr<HttpShared> shared, std::shared_ptr<HttpLoop> loop,
                         std::unique_ptr<HttpTransport> transport, HttpPeer peer)
    : shared_(std::move(shared)), loop_(std::move(loop)), transport_(std::move(transport)), peer_(std::move(peer)) {}

HttpSession::~HttpSession() {
  release_body_memory();
  leave_request();
  shared_->leave(peer_);
}

void HttpSession::start() {
  guarded([&] {
    waker_ = std::make_shared<SessionWaker>(weak_from_this(), loop_);
    read_deadline_ = Clock::now() + shared_->timeouts.handshake;
    transport_->handshake(shared_from_this());
  });
}

void HttpSession::on_handshake(IoOutcome outcome) {
  if (state_ != State::kHandshake) return;
  if (outcome != IoOutcome::kOk) {
    count(shared_->metrics->handshake_errors);
    return close();
  }
  guarded([&] {
    next_request();
    head_begun_ = true;
    read_deadline_ = Clock::now() + shared_->timeouts.header;
    run();
  });
}

void HttpSession::on_read(IoOutcome outcome, std::size_t bytes) {
  reading_ = false;
  if (state_ == State::kClosed) return;
  if (outcome == IoOutcome::kError) return close();
  if (outcome == IoOutcome::kEnd) return peer_ended();
  count(shared_->metrics->bytes_in, bytes);
  in_.commit(bytes);
  guarded([&] { run(); });
}

void HttpSession::on_write(IoOutcome outcome, std::size_t bytes) {
  writing_ = false;
  if (state_ == State::kClosed) return;
  if (outcome != IoOutcome::kOk) return close();
  count(shared_->metrics->bytes_out, bytes);
  guarded([&] {
    out_.consume(bytes);
    // Idle is who has read its answer and asks for nothing more.
    if (state_ == State::kHead && !head_begun_ && out_.empty()) read_deadline_ = Clock::now() + shared_->timeouts.idle;
    if (exchange_) exchange_->set_unsent(out_.size());
    run();
  });
}

void HttpSession::on_wake() {
  if (state_ == State::kResponding) guarded([&] { run(); });
}

/// A client may end its sending and still read: what is complete is sent. What is not yet, nobody computes for it.
void HttpSession::peer_ended() {
  peer_ended_ = true;
  if (state_ == State::kLinger || state_ == State::kResponding || out_.empty()) return close();
  state_ = State::kClosing;
}

void HttpSession::close() {
  if (state_ == State::kClosed) return;
  const auto self = shared_from_this();
  state_ = State::kClosed;
  transport_->close();
  if (exchange_ && exchange_->close()) count(shared_->metrics->disconnects);
  exchange_.reset();
  admission_ = {};
  leave_request();
  loop_->remove(self);
}

void HttpSession::finish() {
  finishing_ = true;
  if (state_ == State::kHandshake) return close();
  if (state_ != State::kHead || !in_.empty()) return;
  if (out_.empty()) return close();
  state_ = State::kClosing;
}

/// As far as what has come allows.
void HttpSession::run() {
  while (state_ != State::kClosed && step()) {
  }
  if (state_ == State::kClosed) return;
  flush();
  if (state_ == State::kClosing && out_.empty()) linger();
  if (state_ != State::kClosed) want_read();
}

bool HttpSession::step() {
  switch (state_) {
    case State::kHead:
    case State::kBody:
    case State::kDiscard:
      return step_request();
    case State::kResponding:
      return step_response();
    case State::kClosing:
    case State::kLinger:
      in_.clear();
      return false;
    case State::kHandshake:
    case State::kClosed:
      break;
  }
  return false;
}

bool HttpSession::step_request() {
  if (state_ == State::kHead) {
    if (in_.empty() || out_.size() > kFullOutput) return false;
    if (!std::exchange(head_begun_, true)) read_deadline_ = Clock::now() + shared_->timeouts.header;
  }
  const HttpParser::Step step = parser_->put(in_.bytes());
  switch (step.event) {
    case HttpParser::Event::kNeedMore:
      in_.consume(step.consumed);
      return false;
    case HttpParser::Event::kHead:
      in_.consume(step.consumed);
      on_head();
      return true;
    case HttpParser::Event::kBody:
      if (state_ == State::kBody) on_body(step.piece);
      if (state_ != State::kClosed) in_.consume(step.consumed);
      return true;
    case HttpParser::Event::kComplete:
      in_.consume(step.consumed);
      if (state_ == State::kDiscard) {
        next_request();
      } else {
        on_request();
      }
      return true;
    case HttpParser::Event::kFailed:
      if (state_ == State::kDiscard) {
        close();
      } else {
        fail(parser_->status(), parser_->message());
      }
      return true;
  }
  return false;
}

void HttpSession::next_request() {
  if (finishing_ && in_.empty()) {
    state_ = State::kClosing;
    return;
  }
  state_ = State::kHead;
  parser_.emplace(shared_->limits.parser);
  head_begun_ = false;
  admission_ = {};
  body_.clear();
  body_bytes_ = 0;
  is_head_method_ = false;
  streaming_ = stream_stays_ = false;
  comment_interval_ = std::chrono::milliseconds(0);
  read_deadline_ = Clock::now() + shared_->timeouts.idle;
}

void HttpSession::on_head() {
  count(shared_->metrics->requests);
  HttpHead& head = parser_->head();
  head.remote_address = peer_.address;
  head.over_unix_socket = peer_.unix_socket;
  head.over_tls = transport_->over_tls();
  head.tls_client = transport_->tls_client();
  is_head_method_ = head.method == "HEAD";
  counted_ = shared_->begin_request();  // before the handler may say no: what it lets in before a drain is waited for
  try {
    admission_ = shared_->handler.admit(head);
  } catch (const std::exception&) {
    return fail(500, "the request could not be looked at");
  }
  if (admission_.refusal) return refuse(std::move(*admission_.refusal));
  if (head.content_length && *head.content_length > admission_.max_body_bytes) {
    count(shared_->metrics->bad_requests);
    return refuse(
        error_response(413, "the body is longer than " + std::to_string(admission_.max_body_bytes) + " bytes"));
  }
  state_ = State::kBody;
  if (!parser_->has_body()) return;
  begin_body_deadlines(admission_.body_timeout.count() > 0 ? admission_.body_timeout : shared_->timeouts.body);
  if (!admission_.sink && head.content_length)
    body_.reserve(std::min<std::uint64_t>(*head.content_length, kReservedBody));
  if (parser_->expects_continue() && in_.empty()) out_.append("HTTP/1.1 100 Continue\r\n\r\n");
}

/// The body is read past where it is small, so that the connection can stay.
void HttpSession::refuse(HttpResponse response) {
  const auto& length = parser_->head().content_length;
  const bool small =
      !parser_->has_body() || (length && *length <= shared_->limits.drained_body_bytes && !parser_->expects_continue());
  const bool keep = small && may_stay();
  const bool has_body = parser_->has_body();
  respond(std::move(response), keep);
  admission_ = {};
  if (!keep) return end_request(false);
  if (!has_body) return end_request(true);
  leave_request();
  state_ = State::kDiscard;
  begin_body_deadlines(shared_->timeouts.body);
}

bool HttpSession::may_stay() const {
  return parser_->keep_alive() && !finishing_ && !shared_->draining();
}

/// It is answered, or will not be.
void HttpSession::leave_request() {
  if (std::exchange(counted_, false)) shared_->end_request();
}

void HttpSession::on_body(std::string_view piece) {
  body_bytes_ += piece.size();
  window_bytes_ += piece.size();
  if (body_bytes_ > admission_.max_body_bytes) {
    return fail(413, "the body is longer than " + std::to_string(admission_.max_body_bytes) + " bytes");
  }
  if (!admission_.sink) {
    body_memory_ += piece.size();
    if (shared_->body_memory.fetch_add(piece.size()) + piece.size() > shared_->limits.body_memory_bytes) {
      return fail(503, "too many bodies are being read; try again later");
    }
    body_.append(piece);
    return;
  }
  Status status = [&]() -> Status {
    try {
      return admission_.sink->write(piece);
    } catch (const std::exception& e) {
      return Error{ErrorCode::kInternal, e.what(), ""};
    }
  }();
  if (!status) fail(admission_.sink->error_status(), to_string(status.error()));
}

void HttpSession::on_request() {
  state_ = State::kResponding;
  exchange_ = std::make_shared<HttpExchange>(waker_, !parser_->http_1_0(), shared_->limits.stream_buffer_bytes);
  HttpRequest request{std::move(parser_->head()), std::exchange(body_, {}), std::move(admission_.sink),
                      std::move(admission_.context),
                      std::make_shared<BodyMemory>(shared_, std::exchange(body_memory_, 0))};
  const auto exchange = exchange_;
  try {
    shared_->handler.handle(std::move(request), make_responder(exchange));
  } catch (const std::exception&) {
    exchange->send(error_response(500, "the request failed inside the server"));
  }
}

bool HttpSession::step_response() {
  HttpExchange::Taken taken = exchange_->take();
  if (taken.overrun) {
    count(shared_->metrics->slow_readers);
    close();
    return false;
  }
  bool keep = may_stay();
  if (taken.unanswered) taken.response = error_response(500, "the request was dropped inside the server");
  if (taken.response) respond(std::move(*taken.response), keep);
  if (taken.prepared) {
    send_head(taken.prepared->head(), keep);
    if (!is_head_method_) out_.append_body(taken.prepared);
  }
  if (taken.begin || !taken.bytes.empty() || taken.comment_interval != comment_interval_) {
    comment_interval_ = taken.comment_interval;
    comment_due_ = Clock::now() + comment_interval_;
  }
  if (taken.begin) begin_stream(std::move(*taken.begin));
  if (!taken.bytes.empty() && stream_has_body_) out_.append_body(std::move(taken.bytes));
  exchange_->set_unsent(out_.size());
  if (!taken.finished) return false;
  if (streaming_) keep = stream_stays_ && !finishing_ && !taken.broken;
  end_request(keep);
  return true;
}

void HttpSession::end_request(bool keep) {
  exchange_.reset();
  release_body_memory();
  leave_request();
  if (keep) return next_request();
  admission_ = {};
  state_ = State::kClosing;
}

void HttpSession::begin_stream(HttpExchange::StreamBegin begin) {
  SerialisedHead head = serialise_head(begin.status, begin.headers, std::nullopt);
  const bool chunked = !parser_->http_1_0();
  streaming_ = true;
  stream_has_body_ = head.usable && !is_head_method_ && may_have_body(begin.status);
  if (head.usable && chunked && may_have_body(begin.status)) head.text += "Transfer-Encoding: chunked\r\n";
  stream_stays_ = chunked && may_stay();
  send_head(head.text, stream_stays_);
}

void HttpSession::respond(HttpResponse response, bool keep) {
  const std::uint64_t size = response.file ? response.file->size() : response.body.size();
  const SerialisedHead head = serialise_head(response.status, response.headers, size);
  send_head(head.text, keep);
  if (!head.usable || is_head_method_ || !may_have_body(response.status)) return;
  if (response.file) {
    out_.append_body(std::move(response.file));
  } else {
    out_.append_body(std::move(response.body));
  }
}

void HttpSession::send_head(std::string_view head, bool keep) {
  out_.append(head);
  out_.append(date_field());
  if (shared_->hsts.count() > 0 && transport_->over_tls())
    out_.append("Strict-Transport-Security: max-age=" + std::to_string(shared_->hsts.count()) + "\r\n");
  if (!keep) {
    out_.append("Connection: close\r\n\r\n");
  } else {
    out_.append(parser_->http_1_0() ? "Connection: keep-alive\r\n\r\n" : "\r\n");
  }
}

HttpResponse HttpSession::error_response(int status, std::string_view message) {
  try {
    return shared_->handler.error_response(status, message, admission_.context);
  } catch (const std::exception&) {
    return {status, {}, ""};
  }
}

void HttpSession::fail(int status, std::string_view message) {
  if (status != 408) count(shared_->metrics->bad_requests);
  HttpResponse response = error_response(status, message);
  if (status == 503 && response.headers.find("Retry-After") == nullptr) response.headers.add("Retry-After", "1");
  respond(std::move(response), false);
  end_request(false);
}

void HttpSession::flush() {
  if (writing_ || out_.empty()) return;
  const std::span<const std::string_view> front = out_.front();
  if (front.empty()) return close();
  writing_ = true;
  write_deadline_ = Clock::now() + shared_->timeouts.write;
  transport_->write_some(front, shared_from_this());
}

void HttpSession::linger() {
  if (peer_ended_) return close();
  state_ = State::kLinger;
  read_deadline_ = Clock::now() + shared_->timeouts.linger;
  transport_->end_writing(shared_from_this());
}

void HttpSession::want_read() {
  if (reading_ || peer_ended_) return;
  const std::size_t header = shared_->limits.parser.header_bytes;
  const std::span<char> room = in_.room(state_ == State::kBody ? std::max(kBodyRoom, header) : header);
  if (room.empty()) return;
  reading_ = true;
  transport_->read_some(room, shared_from_this());
}

void HttpSession::release_body_memory() {
  shared_->body_memory.fetch_sub(std::exchange(body_memory_, 0));
}

}  // namespace tailor
