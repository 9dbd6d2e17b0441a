package server
import ("testing";"context";"fmt";"path/filepath";"time")
func BenchmarkInProcess(b *testing.B){
	var peers []Peer; var cl []string
	for i:=0;i<5;i++{ peers=append(peers,Peer{fmt.Sprintf("n%d",i+1),freeAddress(b)}); cl=append(cl,freeAddress(b))}
	dir:=b.TempDir()
	ctx,cancel:=context.WithCancel(context.Background()); done:=make(chan error,5)
	for i:=0;i<5;i++{ s,err:=Start(Config{Name:peers[i].Name,Cluster:"t",Peers:peers,ListenPeer:peers[i].Address,ListenClient:cl[i],DataDir:filepath.Join(dir,peers[i].Name),TraceFile:filepath.Join(dir,peers[i].Name+".trace"),Tick:25*time.Millisecond,ElectionTicks:20,HeartbeatTicks:2}); if err!=nil{b.Fatal(err)}
		go func(){done<-s.Run(ctx)}() }
	p:=&processes{clients:cl}
	for i:=range cl { waitForLeader(b,cl[i]) }
	for _,c:=range []int{1,16,64,256}{ b.Run(fmt.Sprintf("clients=%d",c),func(b *testing.B){p.measure(b,c)})}
	cancel(); for range 5 { <-done }
}
