#pragma once
/// One I/O thread with its connections, and the clock of their deadlines.

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_set>

namespace boost::asio {
class io_context;
}

namespace tailor {

class HttpSession;

class HttpLoop : public std::enable_shared_from_this<HttpLoop> {
 public:
  /// Deadlines are looked at every `tick`, while there are connections: no timer a request.
  explicit HttpLoop(std::chrono::milliseconds tick);
  HttpLoop(const HttpLoop&) = delete;
  HttpLoop& operator=(const HttpLoop&) = delete;
  ~HttpLoop();

  void start();
  /// Any thread. Runs `work` on the loop's thread; false, and nothing, after stop().
  bool post(std::function<void()> work);
  /// Not the loop's thread. Closes the connections and ends the thread; what was posted has then run.
  void stop();
  boost::asio::io_context& io();

  // The loop's thread only.
  void add(std::shared_ptr<HttpSession> session);
  void remove(const std::shared_ptr<HttpSession>& session);
  void finish();  ///< connections end when their request is answered; new ones at once

 private:
  void run();
  void schedule_tick();
  struct Impl;
  std::unique_ptr<Impl> impl_;
  std::chrono::milliseconds tick_;
  std::unordered_set<std::shared_ptr<HttpSession>> sessions_;
  bool ticking_ = false, finishing_ = false, stopping_ = false;
  std::mutex mutex_;  // guards closed_, and so that nothing is posted after it
  bool closed_ = false;
  std::thread thread_;
};

}  // namespace tailor
