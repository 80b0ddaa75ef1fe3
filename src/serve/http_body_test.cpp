// Bodies of requests and of answers.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/files.h"
#include "serve/http_file.h"
#include "serve/test_server.h"

namespace tailor::test {
namespace {

using testing::HasSubstr;

TEST(HttpBodies, ContinueIsSaidOnlyWhenTheBodyIsWanted) {
  TestHandler handler;
  const auto take = handler.admit_with;
  handler.admit_with = [&](const HttpHead& head) {
    if (head.path == "/ok") return take(head);
    HttpAdmission admission;
    admission.refusal = HttpResponse{401, {{"WWW-Authenticate", "Bearer"}}, "no"};
    return admission;
  };
  TestServer server(handler);
  const std::string fields = " HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
  TestClient client = server.client();
  EXPECT_EQ(client.ask("POST /ok" + fields).status, 100);
  EXPECT_EQ(client.ask("hello").body, "POST /ok? hello");
  EXPECT_EQ(client.ask("POST /ok" + fields + "hello").status, 200) << "the body was there already";
  const Answer refused = client.ask("POST /no" + fields);
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(*refused.headers.find("WWW-Authenticate"), "Bearer");
  EXPECT_EQ(*refused.headers.find("Connection"), "close") << "whether the body comes is not known";
  EXPECT_TRUE(client.closed());
}

TEST(HttpBodies, RefusedRequestsKeepTheConnectionWhereTheirBodyIsSmall) {
  TestHandler handler;
  handler.admit_with = [](const HttpHead&) {
    HttpAdmission admission;
    admission.refusal = HttpResponse{404, {}, "none"};
    return admission;
  };
  TestServer server(handler);
  TestClient client = server.client();
  EXPECT_EQ(client.ask(post("/a", "hello")).status, 404);
  EXPECT_EQ(client.get("/a").status, 404);
  EXPECT_EQ(client.ask(post("/a", std::string(60'000, 'x'))).status, 404);
  const Answer large = client.ask(post("/a", std::string(1 << 20, 'x')));
  EXPECT_EQ(large.status, 404);
  EXPECT_EQ(*large.headers.find("Connection"), "close");
  TestClient chunked = server.client();
  EXPECT_EQ(chunked.ask("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe").status, 404);
  EXPECT_TRUE(chunked.closed());
}

TEST(HttpBodies, TooLongBodiesAreRefusedBeforeTheyAreRead) {
  TestHandler handler;
  handler.admit_with = [](const HttpHead&) {
    HttpAdmission admission;
    admission.max_body_bytes = 4;
    return admission;
  };
  TestServer server(handler);
  EXPECT_EQ(server.ask(post("/", "1234")).status, 200);
  EXPECT_EQ(server.ask("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n").status, 413);
  EXPECT_EQ(server.ask("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 999999999999\r\n\r\n").status, 413);
  const std::string chunked = "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(server.ask(chunked + "4\r\n1234\r\n0\r\n\r\n").status, 200);
  TestClient client = server.client();
  EXPECT_EQ(client.ask(chunked + "4\r\n1234\r\n1\r\n5\r\n").status, 413);
  EXPECT_TRUE(client.closed());
}

class CountingSink final : public HttpBodySink {
 public:
  explicit CountingSink(std::atomic<int>& alive) : alive_(alive) { ++alive_; }
  ~CountingSink() override { --alive_; }
  Status write(std::string_view piece) override {
    bytes += piece.size();
    largest = std::max(largest, piece.size());
    if (piece.find('!') == std::string_view::npos) return {};
    return Error{ErrorCode::kIo, "the disk is full", ""};
  }
  int error_status() const override { return 507; }
  std::size_t bytes = 0, largest = 0;

 private:
  std::atomic<int>& alive_;
};

TEST(HttpBodies, UploadsGoThroughInPieces) {
  std::atomic<int> sinks = 0;
  TestHandler handler;
  handler.admit_with = [&](const HttpHead&) {
    HttpAdmission admission;
    admission.max_body_bytes = std::uint64_t{1} << 30;
    admission.sink = std::make_unique<CountingSink>(sinks);
    admission.context = std::make_shared<std::string>("key 7");
    return admission;
  };
  handler.handle_with = [](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    EXPECT_EQ(request.body, "");
    auto& sink = dynamic_cast<CountingSink&>(*request.sink);
    EXPECT_LE(sink.largest, std::size_t{64} << 10);
    responder->send(
        {200, {}, std::to_string(sink.bytes) + " " + *std::static_pointer_cast<std::string>(request.context)});
  };
  TestServer server(handler);
  const std::size_t size = 20 << 20;
  EXPECT_EQ(server.ask(post("/", std::string(size, 'x'))).body, std::to_string(size) + " key 7");
  const Answer full = server.ask(post("/", "12!45"));
  EXPECT_EQ(full.status, 507);
  EXPECT_THAT(full.body, HasSubstr("the disk is full"));
  TestClient gone = server.client();
  gone.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\nhalf");
  ASSERT_TRUE(eventually([&] { return sinks == 1; }));
  gone.close();
  EXPECT_TRUE(eventually([&] { return sinks == 0; })) << "an unfinished upload is dropped";
}

TEST(HttpBodies, FilesAreSentAsTheyAreTaken) {
  const TemporaryDirectory dir;
  std::string content;
  for (int i = 0; content.size() < (3U << 20); ++i) content += std::to_string(i) + "\n";
  write_file_atomic(dir.path() / "large", content).value();
  write_file_atomic(dir.path() / "empty", "").value();
  TestHandler handler;
  handler.handle_with = [&](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    HttpResponse response;
    const auto file = HttpFileBody::open(dir.path() / request.head.path.substr(1));
    if (file) {
      response.file = *file;
    } else {
      response = {404, {}, file.error().message};
    }
    if (request.head.path == "/cut") std::filesystem::resize_file(dir.path() / "cut", 1 << 20);
    responder->send(std::move(response));
  };
  TestServer server(handler);
  TestClient client = server.client();
  for (int i = 0; i < 3; ++i)
    client.send("GET /large HTTP/1.1\r\nHost: t\r\n\r\nGET /empty HTTP/1.1\r\nHost: t\r\n\r\n");
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(client.read_answer().body == content);
    EXPECT_EQ(client.read_answer().body, "");
  }
  const Answer head = client.ask("HEAD /large HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(*head.headers.find("Content-Length"), std::to_string(content.size()));
  EXPECT_THAT(client.get("/absent").body, HasSubstr("absent cannot be sent: No such file"));
  EXPECT_FALSE(HttpFileBody::open(dir.path()));
  write_file_atomic(dir.path() / "cut", content).value();
  EXPECT_FALSE(client.get("/cut").complete) << "a file that was cut meanwhile breaks off";
}

}  // namespace
}  // namespace tailor::test
