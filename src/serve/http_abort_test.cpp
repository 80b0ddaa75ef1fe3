// Clients that break off anywhere leave nothing behind.

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <thread>

#include "core/rng.h"
#include "serve/test_server.h"

namespace tailor::test {
namespace {

std::size_t open_files() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

/// Answers from a thread of its own, as an engine does.
class Worker {
 public:
  ~Worker() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void add(std::function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(std::move(work));
    }
    changed_.notify_all();
  }

 private:
  void run() {
    for (;;) {
      std::function<void()> work;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return done_ || !queue_.empty(); });
        if (queue_.empty()) return;
        work = std::move(queue_.front());
        queue_.pop_front();
      }
      work();
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool done_ = false;
  std::thread thread_{[this] { run(); }};
};

TEST(HttpAborts, LeaveNoConnectionAndNoDescriptor) {
  constexpr std::uint64_t kRuns = 4'000;
  const std::string head = " HTTP/1.1\r\nHost: t\r\n";
  const std::string scripts[] = {
      "GET /now" + head + "\r\nGET /later" + head + "\r\n",
      "POST /later" + head + "Content-Length: 10\r\n\r\n0123456789GET /stream" + head + "\r\n",
      "POST /now" + head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
      "GET /stream" + head + "\r\n",
      "GET /large" + head + "\r\n",
      "GET /drop" + head + "\r\nBAD\r\n\r\n",
  };
  const auto token = std::make_shared<int>(0);  // held by everything that is alive on the handler's side
  const std::size_t files = open_files();
  {
    Worker worker;
    TestHandler handler;
    handler.handle_with = [&](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
      EXPECT_EQ(request.head.remote_address, "127.0.0.1");
      EXPECT_FALSE(request.head.over_unix_socket) << "whatever is still known of a peer that has gone";
      responder->on_disconnect([token] {});
      const std::string& path = request.head.path;
      if (path == "/now") return responder->send({200, {}, "now"});
      if (path == "/large") return responder->send({200, {}, std::string(1 << 20, 'x')});
      if (path == "/later") return worker.add([responder, token] { responder->send({200, {}, "later"}); });
      if (path != "/stream") return;
      worker.add([responder, token] {
        responder->begin_stream(200, {});
        for (int i = 0; i < 20 && responder->write(std::string(2'000, 'y')); ++i) {
        }
        responder->finish();
      });
    };
    HttpServerOptions options = local_options();
    options.io_threads = 2;
    TestServer server(handler, options);
    for (std::uint64_t run = 0; run < kRuns; ++run) {
      Rng rng(11, run);
      const std::string& script = scripts[rng.below(std::size(scripts))];
      TestClient client = server.client();
      client.send(script.substr(0, 1 + rng.below(script.size())));
      if (rng.below(2) == 0) {
        pollfd event{client.socket(), POLLIN, 0};
        poll(&event, 1, static_cast<int>(rng.below(3)));  // half a request has no answer
        std::string some(1 + rng.below(3'000), '\0');
        std::ignore = recv(client.socket(), some.data(), some.size(), MSG_DONTWAIT);
      }
      rng.below(2) == 0 ? client.abort() : client.close();
    }
    EXPECT_EQ(server.client().get("/now").status, 200);
    EXPECT_TRUE(server.no_connections());
    EXPECT_GT(server.metrics().accepted, kRuns / 2) << "the others were gone before they were looked at";
  }
  EXPECT_EQ(token.use_count(), 1) << "callbacks and answers are gone";
  EXPECT_EQ(open_files(), files);
}

}  // namespace
}  // namespace tailor::test
