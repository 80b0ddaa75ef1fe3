#include <gtest/gtest.h>

#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "core/rng.h"
#include "serve/test_parse.h"

namespace tailor::test {
namespace {

/// What is accepted here, Boost.Beast's parser reads as the same request. (It accepts more: lists of lengths, folded
/// fields, codings it does not know, no Host.)
TEST(HttpParser, ReadsWhatBeastReads) {
  namespace http = boost::beast::http;
  const std::string seeds[] = {
      "GET /v1/models?x=1 HTTP/1.1\r\nHost: a\r\nX-Y: z\r\nx-y: w \r\n\r\n",
      "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
      "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n",
      "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nh\r\n0\r\nT: "
      "v\r\n\r\n",
      "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
  };
  constexpr std::string_view kBytes = "\r\n :;,\t0aA=-%\"\\\x01\xC3";
  int accepted = 0;
  for (std::uint64_t run = 0; run < 20'000; ++run) {
    Rng rng(3, run);
    std::string bytes = seeds[rng.below(std::size(seeds))];
    const std::uint64_t changes = rng.below(4);
    for (std::uint64_t c = 0; c < changes; ++c) {
      const std::size_t at = rng.below(bytes.size());
      const char byte = kBytes[rng.below(kBytes.size())];
      if (rng.below(2) == 0) {
        bytes[at] = byte;
      } else if (rng.below(2) == 0) {
        bytes.insert(at, 1, byte);
      } else {
        bytes.erase(at, 1);
      }
    }
    const Parsed parsed = parse(bytes, rng.below(9));
    if (!parsed.complete) continue;
    ++accepted;
    http::request_parser<http::string_body> beast;
    beast.eager(true);
    boost::system::error_code error;
    const std::size_t consumed = beast.put(boost::asio::buffer(bytes), error);
    ASSERT_FALSE(error) << error.message() << "\n" << bytes;
    ASSERT_TRUE(beast.is_done()) << bytes;
    ASSERT_EQ(consumed, parsed.consumed) << bytes;
    const auto& request = beast.get();
    ASSERT_EQ(std::string(request.method_string()), parsed.head.method);
    ASSERT_EQ(request.body(), parsed.body) << bytes;
    ASSERT_EQ(request.keep_alive(), parsed.keep_alive) << bytes;
    std::size_t i = 0;
    std::vector<HttpHeader> fields(parsed.head.headers.begin(), parsed.head.headers.end());
    for (const HttpHeader& field : fields) {
      const auto [first, last] = request.equal_range(field.name);
      ASSERT_NE(first, last) << field.name;
      i += std::any_of(first, last, [&](const auto& f) {
        return std::string_view(f.value().data(), f.value().size()) == field.value;
      });
    }
    ASSERT_EQ(i, fields.size()) << bytes;
  }
  EXPECT_GT(accepted, 5'000);
}

}  // namespace
}  // namespace tailor::test
