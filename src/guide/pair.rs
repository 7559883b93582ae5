/// A stream of minimio's that is connected to one of `std`'s, the peer.
pub fn pair() -> std::io::Result<(minimio::TcpStream, std::net::TcpStream)> {
    let (stream, peer) = std_pair()?;
    Ok((stream.into(), peer))
}

/// Both ends of a connection of this program to itself.
pub fn std_pair() -> std::io::Result<(std::net::TcpStream, std::net::TcpStream)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let stream = std::net::TcpStream::connect(listener.local_addr()?)?;
    Ok((stream, listener.accept()?.0))
}
