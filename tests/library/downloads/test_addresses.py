"""Downloads talk to public addresses only, and to nobody under a second name."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import InvalidRequest
from webui.library.downloads.addresses import is_public, parse_url

PRIVATE_V4 = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    "224.0.0.0/4", "240.0.0.0/4", "198.18.0.0/15",
)  # fmt: skip
v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6)
private_v4 = st.sampled_from(PRIVATE_V4).flatmap(lambda network: st.ip_addresses(network=network))


@given(private_v4)
def test_a_private_address_is_refused_in_every_dress(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    dresses = [
        address,
        ipaddress.IPv6Address(0xFFFF << 32 | number),  # mapped
        ipaddress.IPv6Address(number),  # compatible
        ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number),  # NAT64
        ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b:1::")) | number),  # local NAT64
        ipaddress.IPv6Address(int(ipaddress.IPv6Address("2002::")) | number << 80),  # 6to4
        ipaddress.IPv6Address(int(ipaddress.IPv6Address("2001::")) | (number ^ 0xFFFFFFFF)),  # Teredo
    ]
    assert [dress for dress in dresses if is_public(dress)] == []


@given(st.one_of(v4, v6))
def test_what_is_taken_for_public_is_global_by_pythons_own_tables(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if is_public(address) and address not in ipaddress.ip_network("64:ff9b::/96"):
        assert address.is_global
        assert not (address.is_multicast or address.is_reserved or address.is_loopback or address.is_link_local)


@pytest.mark.parametrize("network", ["::/8", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "100::/64", "5f00::/16"])
def test_networks_outside_of_the_internet_are_refused(network: str) -> None:
    first, last = ipaddress.IPv6Network(network)[0], ipaddress.IPv6Network(network)[-1]
    assert not is_public(first)
    assert not is_public(last)


@pytest.mark.parametrize("address", ["8.8.8.8", "140.82.121.4", "2606:4700::6810:84e5", "64:ff9b::8c52:7904"])
def test_public_servers_are_reachable_also_through_nat64(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "text",
    [
        "http://example.org/x", "ftp://example.org/x", "file:///etc/passwd", "https://", "https:///x",
        "https://user:secret@example.org/x", "https://example.org\\@127.0.0.1/x", "https://exa mple.org/x",
        "https://example.org/\r\nHost: evil", "https://example.org:99999/x", "https://[::1/x", "gopher://example.org",
        "https://" + "a" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_plain_https_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_url(text)


def test_a_refused_address_does_not_repeat_its_password() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_url("https://ann:geheim@example.org/x")
    assert "geheim" not in str(caught.value)


def test_an_address_is_taken_apart_once_and_asked_as_it_was_checked() -> None:
    url = parse_url("https://BÜCHER.example:8443/a b/%7Bö?q=ä#part".replace(" ", "%20"))
    assert (url.scheme, url.host, url.port) == ("https", "xn--bcher-kva.example", 8443)
    assert url.target == "/a%20b/%7B%C3%B6?q=%C3%A4"
    assert str(parse_url("/other", base=url)) == "https://xn--bcher-kva.example:8443/other"


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_an_error_in_words(text: str) -> None:
    try:
        url = parse_url(f"https://{text}")
    except InvalidRequest:
        return
    assert url.host.isascii()
    assert url.target.startswith("/")
    assert not set(url.target) & set(" \r\n")
    assert parse_url(str(url)) == url
