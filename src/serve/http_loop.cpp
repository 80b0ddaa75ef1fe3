#include "serve/http_loop.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <vector>

#include "serve/http_session.h"

namespace tailor {

namespace asio = boost::asio;

struct HttpLoop::Impl {
  asio::io_context io{1};
  asio::steady_timer timer{io};
  asio::executor_work_guard<asio::io_context::executor_type> work = asio::make_work_guard(io);
};

HttpLoop::HttpLoop(std::chrono::milliseconds tick) : impl_(std::make_unique<Impl>()), tick_(tick) {}

HttpLoop::~HttpLoop() = default;

asio::io_context& HttpLoop::io() {
  return impl_->io;
}

void HttpLoop::start() {
  thread_ = std::thread([this] { run(); });
}

/// Connections catch what they throw; what else may is a callback that ran out of memory.
void HttpLoop::run() {
  for (;;) {
    try {
      impl_->io.run();
      return;
    } catch (...) {
    }
  }
}

bool HttpLoop::post(std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  if (closed_) return false;
  asio::post(impl_->io, std::move(work));
  return true;
}

void HttpLoop::stop() {
  const bool open = post([this] {
    stopping_ = true;
    for (const auto& session : std::vector(sessions_.begin(), sessions_.end())) session->close();
    impl_->timer.cancel();
    impl_->work.reset();
  });
  if (!open) return;
  if (thread_.joinable()) thread_.join();
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  impl_->work.reset();
  impl_->io.restart();
  run();  // what was posted while the thread ended
}

void HttpLoop::add(std::shared_ptr<HttpSession> session) {
  if (stopping_) return;
  HttpSession& added = *session;
  sessions_.insert(std::move(session));
  added.start();
  if (finishing_) added.finish();
  schedule_tick();
}

void HttpLoop::remove(const std::shared_ptr<HttpSession>& session) {
  sessions_.erase(session);
}

void HttpLoop::finish() {
  finishing_ = true;
  for (const auto& session : std::vector(sessions_.begin(), sessions_.end())) session->finish();
}

void HttpLoop::schedule_tick() {
  if (ticking_ || stopping_ || sessions_.empty()) return;
  ticking_ = true;
  impl_->timer.expires_after(tick_);
  impl_->timer.async_wait([this](const boost::system::error_code&) {
    ticking_ = false;
    const auto now = std::chrono::steady_clock::now();
    for (const auto& session : std::vector(sessions_.begin(), sessions_.end())) session->tick(now);
    schedule_tick();
  });
}

}  // namespace tailor
